//! A clock that is read by system calls alone.
//!
//! What programs usually read, the vDSO, executes `rdtime`, and QEMU 10.0 under KVM leaves that forbidden to its guests'
//! programs: they die of SIGILL. The kernel's timers are counted down elsewhere.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_gettime,
    timerfd_settime,
};

/// What the timer counts down from: longer than anything that is measured.
const FROM: Duration = Duration::from_secs(100_000);

/// Runs from when it was made.
pub struct Stopwatch(OwnedFd);

// === impl Stopwatch ===

impl Stopwatch {
    /// Starts to count.
    pub fn start() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let once = Timespec::default();
        let value = Timespec::try_from(FROM).map_err(io::Error::other)?;
        let wanted = Itimerspec {
            it_interval: once,
            it_value: value,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &wanted)?;
        Ok(Self(timer))
    }

    /// How long it has run.
    pub fn elapsed(&self) -> io::Result<Duration> {
        let left = Duration::try_from(timerfd_gettime(&self.0)?.it_value).map_err(io::Error::other)?;
        Ok(FROM.saturating_sub(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_goes_forward() {
        let watch = Stopwatch::start().unwrap();
        let first = watch.elapsed().unwrap();
        assert!(first <= watch.elapsed().unwrap());
    }
}
