//! VMIs that could not be prepared: how often, and when they are tried again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::vm::VmId;

/// First pause after a VMI could not be prepared; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// Longest such pause, as for images in Kubernetes.
const LAST_RETRY: Duration = Duration::from_secs(300);

/// By UID: the failures so far, and when it is tried again.
#[derive(Debug, Default)]
pub struct Retries(Mutex<HashMap<String, (u32, Timestamp)>>);

// === impl Retries ===

impl Retries {
    /// When a VMI is to be tried again.
    pub fn at(&self, id: &VmId) -> Option<Timestamp> {
        self.map().get(&id.uid).map(|(_, at)| *at)
    }

    /// Notes a failure, and gives the pause until the next try.
    pub fn note(&self, id: &VmId, now: Timestamp) -> Duration {
        let mut map = self.map();
        let (failures, _) = map.get(&id.uid).copied().unwrap_or((0, now));
        let pause = FIRST_RETRY
            .saturating_mul(2u32.saturating_pow(failures))
            .min(LAST_RETRY);
        map.insert(id.uid.clone(), (failures.saturating_add(1), now + pause));
        pause
    }

    /// How often a VMI could not be prepared so far.
    pub fn failures(&self, id: &VmId) -> u32 {
        self.map().get(&id.uid).map_or(0, |(failures, _)| *failures)
    }

    /// It worked, or is gone.
    pub fn forget(&self, id: &VmId) {
        self.map().remove(&id.uid);
    }

    /// Forgets all VMIs but these.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.map().retain(|uid, _| keep(uid));
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<String, (u32, Timestamp)>> {
        // Every entry is whole, whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_between_tries_grow_to_five_minutes() {
        let id = VmId {
            namespace: "n".into(),
            name: "v".into(),
            uid: "u".into(),
        };
        let retries = Retries::default();
        let pauses: Vec<u64> = (0..9)
            .map(|_| retries.note(&id, Timestamp::UNIX_EPOCH).as_secs())
            .collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        retries.forget(&id);
        assert_eq!(retries.note(&id, Timestamp::UNIX_EPOCH), FIRST_RETRY);
    }
}
