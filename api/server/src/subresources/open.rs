//! How many consoles and ports users have open, for metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Machine;

/// What is open, by what it is and whose.
#[derive(Debug, Clone, Default)]
pub(super) struct Open(Arc<Mutex<HashMap<(What, Machine), i64>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// Somebody types or looks.
    Console,
    /// A connection to a guest's port.
    Port,
}

/// Something that is open until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    open: Open,
    key: (What, Machine),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Which {
    namespace: String,
    name: String,
}

// === impl Open ===

impl Open {
    pub(super) fn hold(&self, what: What, namespace: &str, name: &str) -> Held {
        let key = (what, (namespace.to_owned(), name.to_owned()));
        *self.lock().entry(key.clone()).or_default() += 1;
        Held {
            open: self.clone(),
            key,
        }
    }

    /// Adds what is open now.
    pub(super) fn count(&self, registry: &mut Registry) {
        let (consoles, ports) = (
            Family::<Which, Gauge>::default(),
            Family::<Which, Gauge>::default(),
        );
        for ((what, (namespace, name)), number) in self.lock().iter() {
            let family = match what {
                What::Console => &consoles,
                What::Port => &ports,
            };
            let which = Which {
                namespace: namespace.clone(),
                name: name.clone(),
            };
            family.get_or_create(&which).set(*number);
        }
        let help = "Viewers at machines' consoles, by websocket";
        registry.register("kubevirt_console_active_connections", help, consoles);
        let help = "Connections to guests' ports, by websocket";
        registry.register("kubevirt_portforward_active_tunnels", help, ports);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(What, Machine), i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.open.lock();
        if let Some(number) = all.get_mut(&self.key) {
            *number -= 1;
            // Nothing is kept of machines at which nobody is.
            if *number == 0 {
                all.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_counted_until_it_is_not() {
        let open = Open::default();
        let first = open.hold(What::Console, "a", "b");
        let second = open.hold(What::Console, "a", "b");
        let text = || {
            let mut registry = Registry::default();
            open.count(&mut registry);
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
            text
        };
        let line = |number: u32| {
            format!("kubevirt_console_active_connections{{namespace=\"a\",name=\"b\"}} {number}\n")
        };
        assert!(text().contains(&line(2)), "{}", text());
        drop(first);
        assert!(text().contains(&line(1)));
        drop(second);
        assert!(open.lock().is_empty() && !text().contains("namespace="));
    }
}
