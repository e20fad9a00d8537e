//! Where vCPU threads stand still, and how the machine's news leave it.
//!
//! ```text
//!   running ──pause: flag, kick──► each thread parks at the gate; the last one says News::Paused
//!      ▲                                         │
//!      └──────────── resume: flag, wake ◄────────┘          end: flag, wake, kick: each thread ends
//! ```
//!
//! A machine that is to start paused has a gate that begins closed: each thread parks before it enters the guest at all.
//! Nothing else has to wait for it: devices and timers do nothing that no guest has asked of them.
//!
//! Devices idle while the vCPUs stand: what was asked of them before is finished, and input goes into buffers that the
//! guest gave before. The guest's clock goes on: KVM's guest time is the host's with an offset, so a guest that is
//! resumed sees at once how long it stood, its timers are due, and nothing is steered back. (Under TCG the guest's clock
//! stands as well.)

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use rvmm_backends::{DiskError, News, OnNews};
use rvmm_spec::{OnStart, Outcome};
use vmm_sys_util::eventfd::EventFd;

const RUN: u8 = 0;
const PARK: u8 = 1;
const END: u8 = 2;

/// What all vCPU threads of a machine look at between two runs.
pub struct Gate {
    wish: AtomicU8,
    reported: AtomicBool,
    parked: Mutex<u32>,
    changed: Condvar,
    vcpus: u32,
    on_news: OnNews,
    /// Disks whose requests may wait for the machine to go on.
    waiting: Mutex<Vec<Weak<EventFd>>>,
}

// === impl Gate ===

impl Gate {
    /// A gate for so many vCPUs, open unless they are to wait from the start.
    pub fn new(vcpus: u8, on_start: OnStart, on_news: OnNews) -> Self {
        let wish = match on_start {
            OnStart::Run => RUN,
            OnStart::Pause => PARK,
        };
        Self {
            wish: AtomicU8::new(wish),
            reported: AtomicBool::new(false),
            parked: Mutex::new(0),
            changed: Condvar::new(),
            vcpus: vcpus.into(),
            on_news,
            waiting: Mutex::default(),
        }
    }

    /// Rings this whenever the machine goes on, for as long as somebody else holds it.
    pub fn ring_on_resume(&self, bell: &Arc<EventFd>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|bell| bell.strong_count() > 0);
        waiting.push(Arc::downgrade(bell));
    }

    /// Waits here while the machine is paused; false when the thread is to end.
    pub fn pass(&self) -> bool {
        match self.wish.load(Ordering::Acquire) {
            RUN => true,
            END => false,
            _ => self.park(),
        }
    }

    fn park(&self) -> bool {
        let mut parked = self.parked();
        *parked += 1;
        if *parked == self.vcpus && self.wish.load(Ordering::Acquire) == PARK {
            (self.on_news)(News::Paused);
        }
        while self.wish.load(Ordering::Acquire) == PARK {
            parked = self.changed.wait(parked).unwrap_or_else(PoisonError::into_inner);
        }
        *parked -= 1;
        self.wish.load(Ordering::Acquire) == RUN
    }

    /// Makes every vCPU's thread park when it next leaves the guest.
    pub fn pause(&self) {
        let parked = self.parked();
        // Never back from the end.
        let closed = self
            .wish
            .compare_exchange(RUN, PARK, Ordering::AcqRel, Ordering::Acquire);
        // Threads that were resumed a moment ago may not even have noticed.
        if closed.is_ok() && *parked == self.vcpus {
            (self.on_news)(News::Paused);
        }
    }

    /// Lets parked threads go on.
    pub fn resume(&self) {
        let _parked = self.parked();
        let opened = self
            .wish
            .compare_exchange(PARK, RUN, Ordering::AcqRel, Ordering::Acquire);
        self.changed.notify_all();
        if opened.is_ok() {
            (self.on_news)(News::Running);
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            // A counter that is full has rung already.
            for bell in waiting.iter().filter_map(Weak::upgrade) {
                bell.write(1).ok();
            }
        }
    }

    /// Reports how the machine ended, unless that has been done.
    pub fn report(&self, outcome: Outcome) {
        if !self.reported.swap(true, Ordering::AcqRel) {
            (self.on_news)(News::Ended(outcome));
        }
    }

    /// Reports that the guest has not fed its watchdog in time, unless it is over.
    pub fn report_watchdog(&self) {
        if !self.reported.load(Ordering::Acquire) {
            (self.on_news)(News::Watchdog);
        }
    }

    /// Reports that a disk's request waits, unless it is over.
    pub fn report_disk(&self, error: DiskError) {
        if !self.reported.load(Ordering::Acquire) {
            (self.on_news)(News::DiskFailed(error));
        }
    }

    /// Makes every vCPU's thread end when it next leaves the guest. How it ended is not reported from now on.
    pub fn end(&self) {
        self.reported.store(true, Ordering::Release);
        let _parked = self.parked();
        self.wish.store(END, Ordering::Release);
        self.changed.notify_all();
    }

    fn parked(&self) -> MutexGuard<'_, u32> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
