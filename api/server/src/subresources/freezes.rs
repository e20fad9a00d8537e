//! Guests whose file systems are frozen, and until when: a backup that never comes back must not hold a guest for ever.
//!
//! It is kept in memory, as KubeVirt keeps it in the launcher: a server that ends has its guests frozen until somebody thaws them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;

/// Those that will be thawed, by the UID of their instance.
#[derive(Debug, Default)]
pub(super) struct Freezes(Mutex<HashMap<String, AbortHandle>>);

// === impl Freezes ===

impl Freezes {
    /// Has `thaw` done after this time, in place of what was to be done before.
    pub(super) fn until(
        self: &Arc<Self>,
        uid: &str,
        time: Duration,
        thaw: impl Future<Output = ()> + Send + 'static,
    ) {
        let (freezes, of) = (Arc::clone(self), uid.to_owned());
        let mut waiting = self.lock();
        let task = tokio::spawn(async move {
            tokio::time::sleep(time).await;
            // From here on it is done, whoever freezes again meanwhile.
            freezes.lock().remove(&of);
            thaw.await;
        });
        if let Some(before) = waiting.insert(uid.to_owned(), task.abort_handle()) {
            before.abort();
        }
    }

    /// Nothing is to be done any more.
    pub(super) fn over(&self, uid: &str) {
        if let Some(task) = self.lock().remove(uid) {
            task.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, AbortHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_last_freeze_counts_and_a_thaw_ends_it() {
        const NEVER: Duration = Duration::from_secs(3600);
        let freezes = Arc::new(Freezes::default());
        let (done, mut thawed) = mpsc::unbounded_channel();
        let freeze = |uid: &str, time: Duration, word: &'static str| {
            let done = done.clone();
            freezes.until(uid, time, async move { done.send(word).expect("the test waits") });
        };
        freeze("a", NEVER, "the first");
        freeze("a", Duration::ZERO, "the second");
        freeze("b", NEVER, "another");
        freezes.over("b");
        assert_eq!(thawed.recv().await, Some("the second"));
        assert!(freezes.lock().is_empty());
    }
}
