//! Who types at a console: the last one who came to. The one before notices that its turn is over.
//!
//! Whoever has the machines keeps them, so that all who lead to one machine agree: of several servers in front of a handler, each asks it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The turns at a node's consoles, by the machine's UID.
#[derive(Debug, Default)]
pub struct Turns {
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    /// How many there were: each has a number of its own.
    count: u64,
    taken: HashMap<String, (u64, oneshot::Sender<()>)>,
}

/// One viewer's turn. It ends when the next one begins, or when this is dropped.
#[derive(Debug)]
pub struct Turn {
    over: Over,
    _place: Option<Place>,
}

/// How a turn comes to its end.
#[derive(Debug)]
enum Over {
    /// By a word of whoever keeps the turns.
    Told(oneshot::Receiver<()>),
    /// It has.
    Past,
    /// Never: who only looks has nothing to lose.
    Never,
}

/// A turn's place among all.
#[derive(Debug)]
struct Place {
    turns: Arc<Turns>,
    uid: String,
    number: u64,
}

// === impl Turns ===

impl Turns {
    /// Takes the keyboard of this machine's console from whoever has it.
    pub fn take(self: &Arc<Self>, uid: &str) -> Turn {
        let (mine, over) = oneshot::channel();
        let mut all = self.lock();
        all.count += 1;
        let number = all.count;
        if let Some((_, before)) = all.taken.insert(uid.to_owned(), (number, mine)) {
            // It may be leaving at this moment.
            let _ = before.send(());
        }
        let place = Place {
            turns: Arc::clone(self),
            uid: uid.to_owned(),
            number,
        };
        Turn {
            over: Over::Told(over),
            _place: Some(place),
        }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Turn ===

impl Turn {
    /// Of one who only looks: nobody takes anything from them.
    pub fn to_look() -> Self {
        Self {
            over: Over::Never,
            _place: None,
        }
    }

    /// One that somebody else keeps, and ends by sending a word.
    pub(crate) fn kept_elsewhere() -> (oneshot::Sender<()>, Self) {
        let (mine, over) = oneshot::channel();
        let turn = Self {
            over: Over::Told(over),
            _place: None,
        };
        (mine, turn)
    }

    /// Returns when somebody else has taken the keyboard; at once, if that was before.
    pub async fn over(&mut self) {
        if let Over::Told(over) = &mut self.over {
            // Who keeps it may be gone with the console, which is no end of a turn.
            self.over = over.await.map_or(Over::Never, |()| Over::Past);
        }
        if matches!(self.over, Over::Never) {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.turns.lock();
        if all
            .taken
            .get(&self.uid)
            .is_some_and(|(number, _)| *number == self.number)
        {
            all.taken.remove(&self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn the_last_who_came_has_the_keyboard() {
        let turns = Arc::new(Turns::default());
        let (mut first, mut other) = (turns.take("a"), turns.take("b"));
        assert!(first.over().now_or_never().is_none());
        let mut second = turns.take("a");
        assert!(first.over().now_or_never().is_some());
        assert!(first.over().now_or_never().is_some(), "and that stays so");
        assert!(second.over().now_or_never().is_none());
        assert!(other.over().now_or_never().is_none());
        assert!(Turn::to_look().over().now_or_never().is_none());
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let turns = Arc::new(Turns::default());
        let first = turns.take("a");
        let second = turns.take("a");
        drop(first);
        assert_eq!(turns.lock().taken.len(), 1);
        drop(second);
        assert!(turns.lock().taken.is_empty());
    }
}
