//! Where vCPU threads stand still, and how the machine's news leave it.
//!
//! ```text
//!   running ──pause: flag, kick──► each thread parks at the gate; the last one says News::Paused
//!      ▲                                         │
//!      └──────────── resume: flag, wake ◄────────┘          end: flag, wake, kick: each thread ends
//! ```
//!
//! Devices idle while the vCPUs stand: what was asked of them before is finished, and input goes into buffers that the
//! guest gave before. The guest's clock goes on: KVM's guest time is the host's with an offset, so a guest that is
//! resumed sees at once how long it stood, its timers are due, and nothing is steered back. (Under TCG the guest's clock
//! stands as well.)

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rvmm_backends::{News, OnNews};
use rvmm_spec::Outcome;

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
}

// === impl Gate ===

impl Gate {
    /// An open gate for so many vCPUs.
    pub fn new(vcpus: u8, on_news: OnNews) -> Self {
        Self {
            wish: AtomicU8::new(RUN),
            reported: AtomicBool::new(false),
            parked: Mutex::new(0),
            changed: Condvar::new(),
            vcpus: vcpus.into(),
            on_news,
        }
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
