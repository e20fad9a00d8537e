//! Slows down a guest that does nothing but reset.

use std::time::Duration;

/// A guest that runs at least this long before it resets is not in a loop. Slow hosts take a good part of it to boot.
const HEALTHY: Duration = Duration::from_secs(60);

/// Quick resets in a row that cost nothing: firmware and installers do two or three.
const FREE: u32 = 3;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Counts quick resets in a row.
#[derive(Debug, Default)]
pub struct Throttle {
    quick: u32,
}

// === impl Throttle ===

impl Throttle {
    /// The guest reset after running this long. How long to wait before it is started again.
    pub fn after(&mut self, ran: Duration) -> Duration {
        if ran >= HEALTHY {
            self.quick = 0;
            return Duration::ZERO;
        }
        self.quick = self.quick.saturating_add(1);
        match self.quick.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_PAUSE
                .saturating_mul(1 << doublings.min(8))
                .min(LONGEST_PAUSE),
        }
    }

    /// Quick resets in a row so far.
    pub fn quick(&self) -> u32 {
        self.quick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tight_loop_is_slowed_down_to_one_reset_in_half_a_minute() {
        let mut throttle = Throttle::default();
        let pauses: Vec<u64> = (0..12)
            .map(|_| throttle.after(Duration::from_secs(1)).as_secs())
            .collect();
        assert_eq!(pauses, [0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30, 30]);
    }

    #[test]
    fn a_guest_that_ran_for_a_while_starts_again_at_once() {
        let mut throttle = Throttle::default();
        let pauses: Vec<_> = (0..6).map(|_| throttle.after(Duration::ZERO)).collect();
        assert!(pauses[5] > Duration::ZERO);
        assert_eq!(throttle.after(HEALTHY), Duration::ZERO);
        assert_eq!(throttle.after(Duration::ZERO), Duration::ZERO);
    }
}
