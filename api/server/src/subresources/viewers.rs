//! Who has a console: the last one who came. The one before notices that its turn is over.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The turns that are taken, by the machine's UID.
#[derive(Debug, Default)]
pub(super) struct Viewers {
    turns: Mutex<Turns>,
}

#[derive(Debug, Default)]
struct Turns {
    /// How many there were: each has a number of its own.
    count: u64,
    taken: HashMap<String, (u64, oneshot::Sender<Infallible>)>,
}

/// One viewer's turn. It ends when the next one begins, or when this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    viewers: Arc<Viewers>,
    uid: String,
    number: u64,
    over: oneshot::Receiver<Infallible>,
}

// === impl Viewers ===

impl Viewers {
    /// Takes the console of this machine from whoever has it.
    pub(super) fn take(self: &Arc<Self>, uid: &str) -> Turn {
        let (mine, over) = oneshot::channel();
        let mut turns = self.lock();
        turns.count += 1;
        let number = turns.count;
        turns.taken.insert(uid.to_owned(), (number, mine));
        Turn {
            viewers: Arc::clone(self),
            uid: uid.to_owned(),
            number,
            over,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Turn ===

impl Turn {
    /// Returns when somebody else has taken the console.
    pub(super) async fn over(&mut self) {
        // Nothing is ever sent: the next one drops the sender.
        let _ = (&mut self.over).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.viewers.lock();
        if turns
            .taken
            .get(&self.uid)
            .is_some_and(|(number, _)| *number == self.number)
        {
            turns.taken.remove(&self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn the_last_who_came_has_the_console() {
        let viewers = Arc::new(Viewers::default());
        let (mut first, mut other) = (viewers.take("a"), viewers.take("b"));
        assert!(first.over().now_or_never().is_none());
        let mut second = viewers.take("a");
        assert!(first.over().now_or_never().is_some());
        assert!(second.over().now_or_never().is_none());
        assert!(other.over().now_or_never().is_none());
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let viewers = Arc::new(Viewers::default());
        let first = viewers.take("a");
        let second = viewers.take("a");
        drop(first);
        assert_eq!(viewers.lock().taken.len(), 1);
        drop(second);
        assert!(viewers.lock().taken.is_empty());
    }
}
