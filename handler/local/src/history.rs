//! The last changes, in order: what watchers read, and what brings back the state of a moment ago.
//!
//! ```text
//!   floor                                             newest
//!     │  change 101  change 102  ...  change 140 │◄──── append (the writer)
//!     │      ▲                        ▲
//!     │   a slow watcher           a quick one           each watcher is only a number: the last revision it has seen
//! ```
//!
//! Nothing is kept per watcher. A watcher whose number falls below the floor is told `410 Gone` and has to list again, as it
//! would be by kube-apiserver; so is one that comes with a revision from before the last restart.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::limits;
use crate::object::{Key, Object};

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) revision: u64,
    /// What it was; none where it was created.
    pub(crate) before: Option<Arc<Object>>,
    /// What it is; none where it was deleted.
    pub(crate) after: Option<Arc<Object>>,
    /// What a watcher is shown: `after`, or the last state, carrying the revision of the deletion.
    pub(crate) shown: Arc<Object>,
}

impl Change {
    fn size(&self) -> usize {
        self.shown.size + self.before.as_ref().map_or(0, |object| object.size)
    }
}

/// The revision asked for is no longer covered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooOld {
    pub(crate) floor: u64,
}

/// A bounded run of changes without gaps.
#[derive(Debug)]
pub(crate) struct History {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// All changes after this revision are here.
    floor: u64,
}

impl History {
    /// An empty history that begins after `revision`.
    pub(crate) fn after(revision: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            floor: revision,
        }
    }

    /// Adds a change, and forgets the oldest ones where there are too many.
    pub(crate) fn append(&mut self, change: Arc<Change>) {
        self.bytes += change.size();
        self.changes.push_back(change);
        while self.changes.len() > limits::HISTORY_CHANGES || self.bytes > limits::HISTORY_BYTES {
            let Some(oldest) = self.changes.pop_front() else {
                break;
            };
            self.bytes -= oldest.size();
            self.floor = oldest.revision;
        }
    }

    /// The first `most` changes after `revision`.
    pub(crate) fn since(&self, revision: u64, most: usize) -> Result<Vec<Arc<Change>>, TooOld> {
        self.check(revision)?;
        let start = self.changes.partition_point(|change| change.revision <= revision);
        Ok(self.changes.range(start..).take(most).cloned().collect())
    }

    /// What has to be put back to get from now to the state at `revision`: for every object changed since, what it was then.
    pub(crate) fn undo_to(&self, revision: u64) -> Result<BTreeMap<Key, Option<Arc<Object>>>, TooOld> {
        self.check(revision)?;
        let start = self.changes.partition_point(|change| change.revision <= revision);
        // From the newest to the oldest: the oldest change after `revision` has the last word.
        let changes = self.changes.range(start..).rev();
        Ok(changes
            .map(|change| (change.key.clone(), change.before.clone()))
            .collect())
    }

    fn check(&self, revision: u64) -> Result<(), TooOld> {
        if revision < self.floor {
            Err(TooOld { floor: self.floor })
        } else {
            Ok(())
        }
    }
}
