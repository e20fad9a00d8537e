//! Whether something that ought to happen again and again still does.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When something was last tried, and when it last went well.
#[derive(Debug)]
pub struct Pulse {
    last: Mutex<(Instant, Instant)>,
}

impl Default for Pulse {
    /// It has just been done.
    fn default() -> Self {
        let now = Instant::now();
        Self {
            last: Mutex::new((now, now)),
        }
    }
}

// === impl Pulse ===

impl Pulse {
    /// It has been tried.
    pub fn beat(&self, went_well: bool) {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.0 = now;
        if went_well {
            last.1 = now;
        }
    }

    /// How long nobody has tried.
    pub fn untried(&self) -> Duration {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .elapsed()
    }

    /// How long it has not gone well.
    pub fn failing(&self) -> Duration {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_in_vain_is_not_done() {
        let pulse = Pulse::default();
        std::thread::sleep(Duration::from_millis(2));
        let before = pulse.failing();
        pulse.beat(false);
        assert!(pulse.untried() < before && pulse.failing() >= before);
        pulse.beat(true);
        assert!(pulse.failing() < before);
    }
}
