//! Devices that something becomes of when a time has come, the RTC and the watchdog: each has a timer of the host's kernel in
//! the event loop.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::io::{Errno, read};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use rvmm_devices::rtc::Rtc;
use rvmm_devices::watchdog::Watchdog;

/// The least that a timer can wait: 0 would stop it.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// Longest wait. An alarm beyond it is looked at again when it is over.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A device that sets a timer.
pub trait Timed: Send {
    /// The time has come, or it is too early.
    fn time_is_up(&mut self);
}

/// Such a device and its timer. A subscriber of the event loop.
pub struct Alarm {
    device: Arc<Mutex<dyn Timed>>,
    timer: Arc<OwnedFd>,
}

/// A timer that nobody waits for yet.
///
/// # Errors
/// The kernel's, when it gives no descriptors.
pub fn timer() -> Result<Arc<OwnedFd>, Errno> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    timerfd_create(TimerfdClockId::Monotonic, flags).map(Arc::new)
}

/// Sets the timer to go off in so long from now, or never.
pub fn set(timer: &OwnedFd, wait: Option<Duration>) {
    let wait = wait.map_or(Duration::ZERO, |wait| wait.clamp(AT_ONCE, LONGEST));
    let none = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let value = Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    };
    let once = Itimerspec {
        it_interval: none,
        it_value: value,
    };
    // Refused only for times that are none.
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once).ok();
}

// === impl Alarm ===

impl Alarm {
    /// This device with the timer that it sets.
    pub fn new(device: Arc<Mutex<dyn Timed>>, timer: Arc<OwnedFd>) -> Self {
        Self { device, timer }
    }
}

impl Timed for Rtc {
    fn time_is_up(&mut self) {
        self.alarm_reached();
    }
}

impl Timed for Watchdog {
    fn time_is_up(&mut self) {
        Self::time_is_up(self);
    }
}

impl MutEventSubscriber for Alarm {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        // Refused only when the kernel has no memory left.
        ops.add(Events::new_raw(self.timer.as_raw_fd(), EventSet::IN))
            .ok();
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        // Empty when the guest set the timer anew in between: the device then finds that it is too early.
        read(&self.timer, &mut [0; 8]).ok();
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        device.time_is_up();
    }
}
