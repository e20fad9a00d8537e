//! The rvmms that this handler has started itself, until how they ended is noted.
//!
//! A machine that crashed is seen to be gone a moment before its parent has its exit status, which says why. One that never
//! came up looks in that moment as if it had never been started; nobody may start it again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::stop::OBEY;
use crate::vm::VmId;

/// By UID, what ends when the child's end is noted.
#[derive(Debug, Clone, Default)]
pub struct Children(Arc<Mutex<HashMap<String, watch::Receiver<()>>>>);

/// A child that was started. Dropped once its end is noted.
#[derive(Debug)]
pub struct Child {
    children: Children,
    uid: String,
    _settled: watch::Sender<()>,
}

// === impl Children ===

impl Children {
    /// A child of ours.
    pub fn add(&self, id: &VmId) -> Child {
        let (sender, settled) = watch::channel(());
        self.map().insert(id.uid.clone(), settled);
        Child {
            children: self.clone(),
            uid: id.uid.clone(),
            _settled: sender,
        }
    }

    /// Whether it was a child of ours whose end was not noted yet; then waits until it is.
    pub async fn settled(&self, id: &VmId) -> bool {
        let settled = self.map().get(&id.uid).cloned();
        let Some(mut settled) = settled else {
            return false;
        };
        // Nobody ever sends: it ends when the child is dropped. One that never ends is not waited for for ever.
        tokio::time::timeout(OBEY, settled.changed()).await.is_ok()
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, watch::Receiver<()>>> {
        // Every entry is whole, whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.children.map().remove(&self.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[tokio::test]
    async fn whoever_asks_waits_until_the_end_is_noted() {
        let (children, id) = (Children::default(), sample::id());
        assert!(!children.settled(&id).await);
        let child = children.add(&id);
        let (asked, ended) = tokio::join!(children.settled(&id), async { drop(child) });
        assert_eq!((asked, ended), (true, ()));
        assert!(!children.settled(&id).await);
    }
}
