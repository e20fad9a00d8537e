//! The clock that keeps a disk to its limits: a timer whose descriptor wakes the disk's event loop.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use rvmm_devices::virtio::blk::Alarm;

/// A timer of the kernel. Its descriptor becomes readable when it rings, an edge each time.
#[derive(Debug)]
pub struct Timer(OwnedFd);

// === impl Timer ===

impl Timer {
    /// One that is not set.
    ///
    /// # Errors
    /// The kernel's, when it gives no descriptor.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Alarm for Timer {
    fn now(&self) -> Duration {
        let now = clock_gettime(ClockId::Monotonic);
        let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
        Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
    }

    fn ring_at(&mut self, at: Duration) {
        const NEVER: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // All zero would be no alarm at all; a time that has passed rings at once.
        let at = at.max(Duration::from_nanos(1));
        let alarm = Itimerspec {
            it_interval: NEVER,
            it_value: Timespec {
                tv_sec: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: at.subsec_nanos().into(),
            },
        };
        // Refused only for a descriptor that is no timer, or a time that is none.
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &alarm).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    #[test]
    fn it_rings_at_its_time_and_not_without_one() {
        let mut timer = Timer::new().unwrap();
        let readable = |timer: &Timer, wait| {
            let mut fds = [PollFd::new(&timer.0, PollFlags::IN)];
            poll(&mut fds, wait).unwrap() == 1
        };
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        assert!(!readable(&timer, Some(&at_once)));
        let at = timer.now() + Duration::from_millis(1);
        timer.ring_at(at);
        assert!(readable(&timer, None));
        assert!(timer.now() >= at);
        timer.ring_at(Duration::ZERO);
        assert!(readable(&timer, None), "a time that has passed rings too");
    }
}
