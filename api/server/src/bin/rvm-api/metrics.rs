//! What rvm-api tells of itself to whoever watches over it.
//!
//! It works while it answers: what breaks in it ends it. It can do what it is there for while kube-apiserver answers it, since it keeps
//! nothing of its own.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kube::Client;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rvm_server::Subresources;
use rvm_server::observe::Subject;

/// How long kube-apiserver may take to say which version it is.
const TAKES: Duration = Duration::from_secs(5);

/// This server.
pub(crate) struct Server {
    client: Client,
    below: Subresources,
    leads: Leads,
}

/// Whether it is we who follow VirtualMachines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leads(Arc<AtomicBool>);

/// Takes it back when the work ends, also where it is dropped.
struct Held(Leads);

// === impl Server ===

impl Server {
    pub(crate) fn new(client: Client, below: Subresources) -> Self {
        Self {
            client,
            below,
            leads: Leads::default(),
        }
    }

    pub(crate) fn leads(&self) -> Leads {
        self.leads.clone()
    }
}

// === impl Leads ===

impl Leads {
    /// We lead for as long as this work is done.
    pub(crate) fn while_running<W: Future<Output = ()>>(&self, work: W) -> impl Future<Output = ()> + use<W> {
        let held = Held(self.clone());
        held.0.0.store(true, Ordering::Relaxed);
        async move {
            let _held = held;
            work.await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

#[tonic::async_trait]
impl Subject for Server {
    async fn count(&self, registry: &mut Registry) {
        self.below.count(registry);
        for (name, help, is_so) in [
            (
                "kubevirt_virt_controller_leading_status",
                "1 where this one of several follows VirtualMachines",
                self.leads.0.load(Ordering::Relaxed),
            ),
            (
                "rvm_api_ready_status",
                "1 while kube-apiserver answers",
                self.hindrance().await.is_none(),
            ),
        ] {
            let gauge = Gauge::<i64>::default();
            gauge.set(is_so.into());
            registry.register(name, help, gauge);
        }
    }

    async fn illness(&self) -> Option<String> {
        None
    }

    async fn hindrance(&self) -> Option<String> {
        match tokio::time::timeout(TAKES, self.client.apiserver_version()).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("kube-apiserver does not answer as it should: {error}")),
            Err(_) => Some(format!(
                "kube-apiserver has not answered for {} s",
                TAKES.as_secs()
            )),
        }
    }
}
