//! How fast a device may be, a disk or the entropy device: a bucket of requests and one of bytes.
//!
//! A request is let through while no bucket is empty, and then taken out of both, so that a large one leaves a debt that
//! those after it wait for. So the average is kept to the byte, nothing has to be known of a request before it is read,
//! and what comes at once is bounded by a tenth of a second's worth and one request.

use std::time::Duration;

/// So much of a second fits into a bucket.
const BURST: u64 = 10;

const NANOS: i128 = 1_000_000_000;

/// A clock that can wake who runs the device.
pub trait Alarm: Send {
    /// Time since some moment of the past; never goes back.
    fn now(&self) -> Duration;

    /// Has the device's queues looked at again at this time, instead of any that was asked for before.
    fn ring_at(&mut self, at: Duration);
}

/// Requests and bytes a second; no limit where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests a second.
    pub requests: Option<u64>,
    /// Bytes a second.
    pub bytes: Option<u64>,
}

/// What keeps a device to its limits.
pub(super) struct Pace {
    requests: Option<Bucket>,
    bytes: Option<Bucket>,
    alarm: Box<dyn Alarm>,
}

/// A bucket that fills with time and may be in debt.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bucket {
    /// Tokens a second.
    rate: i128,
    /// Billionths of tokens.
    level: i128,
    most: i128,
    seen: Duration,
}

// === impl Pace ===

impl Pace {
    /// A disk that has been idle for long.
    pub(super) fn new(limits: Limits, alarm: Box<dyn Alarm>) -> Self {
        let bucket = |rate: u64| Bucket::new(rate, alarm.now());
        Self {
            requests: limits.requests.map(bucket),
            bytes: limits.bytes.map(bucket),
            alarm,
        }
    }

    /// Whether the next request has to wait; the alarm is set then.
    pub(super) fn waits(&mut self) -> bool {
        let now = self.alarm.now();
        let buckets = self.requests.iter_mut().chain(&mut self.bytes);
        let wait = buckets.map(|bucket| bucket.wait(now)).max().unwrap_or_default();
        if wait.is_zero() {
            return false;
        }
        self.alarm.ring_at(now.saturating_add(wait));
        true
    }

    /// Counts a request that was let through.
    pub(super) fn take(&mut self, bytes: u64) {
        self.requests.iter_mut().for_each(|bucket| bucket.take(1));
        self.bytes.iter_mut().for_each(|bucket| bucket.take(bytes));
    }
}

// === impl Bucket ===

impl Bucket {
    /// Full, with at least one token.
    fn new(rate: u64, now: Duration) -> Self {
        let most = i128::from((rate / BURST).max(1)) * NANOS;
        Self {
            rate: i128::from(rate.max(1)),
            level: most,
            most,
            seen: now,
        }
    }

    /// How long until something is in it.
    fn wait(&mut self, now: Duration) -> Duration {
        let since = now.saturating_sub(self.seen);
        self.seen = self.seen.max(now);
        // A thousand years of nanoseconds at the highest rate still fit.
        let nanos = i128::try_from(since.as_nanos()).unwrap_or(NANOS);
        self.level = self
            .level
            .saturating_add(nanos.saturating_mul(self.rate))
            .min(self.most);
        if self.level > 0 {
            return Duration::ZERO;
        }
        let nanos = (1 - self.level).div_euclid(self.rate) + 1;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn take(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(i128::from(tokens) * NANOS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_disk_without_limits_never_waits_and_one_at_its_limit_waits_as_long_as_it_must() {
        let mut bucket = Bucket::new(10, Duration::ZERO);
        assert_eq!(bucket.wait(Duration::ZERO), Duration::ZERO);
        bucket.take(3);
        let wait = bucket.wait(Duration::ZERO);
        assert_eq!(wait.as_millis(), 200, "two tokens of debt, ten a second");
        assert_eq!(bucket.wait(wait), Duration::ZERO);
    }

    proptest! {
        /// Requests come as fast as they are let through.
        #[test]
        fn a_busy_disk_gets_its_rate_and_no_more(
            rate in 1u64..1_000_000_000,
            requests in proptest::collection::vec(1u64..40_000_000, 1..60),
        ) {
            let mut bucket = Bucket::new(rate, Duration::ZERO);
            let (mut now, mut passed, mut last) = (Duration::ZERO, 0u128, 0u64);
            for request in requests {
                let wait = bucket.wait(now);
                now += wait;
                prop_assert_eq!(bucket.wait(now), Duration::ZERO, "what was waited for is there");
                // Before this request: the burst, what time gave, and at most the whole of the last request.
                let earned = u128::from((rate / BURST).max(1)) + now.as_nanos() * u128::from(rate) / 1_000_000_000;
                prop_assert!(passed <= earned + u128::from(last) + 1, "{passed} of {earned} after {now:?}");
                bucket.take(request);
                passed += u128::from(request);
                last = request;
            }
            // Nothing was held back for longer than the debt asks for.
            let least = passed.saturating_sub(u128::from(last));
            let allowed = Duration::from_nanos(u64::try_from(least * 1_000_000_000 / u128::from(rate)).unwrap());
            prop_assert!(now <= allowed + Duration::from_micros(1), "{now:?} of {allowed:?}");
        }

        #[test]
        fn idleness_is_not_saved_up(rate in 1u64..1_000_000_000, idle in 0u64..u64::MAX) {
            let mut bucket = Bucket::new(rate, Duration::ZERO);
            let full = bucket.level;
            bucket.wait(Duration::from_nanos(idle));
            prop_assert_eq!(bucket.level, full);
        }
    }
}
