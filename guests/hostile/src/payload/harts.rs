//! The second hart: started for one job, stopped after it.
#![expect(
    unsafe_code,
    reason = "a hart is started at the address of its first instruction"
)]

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::bare::{ecall, now};
use super::sbi::HSM;
use super::transport::register;
use super::virtio::Virtio;
use super::{Verdict, life};

const STOPPED: u64 = 1;
/// Ticks that a job of the other hart may take.
const PATIENCE: u64 = 600_000_000;

static JOB: AtomicUsize = AtomicUsize::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    /// The first instruction of the second hart.
    fn second_hart();
}

fn other() -> u64 {
    1 - life::hart()
}

/// What the second hart does: its job, and then nothing more.
pub fn second_life() -> ! {
    let job = JOB.load(Ordering::Acquire);
    // SAFETY: `start_other_hart` stored a function of this type there.
    let job: fn() = unsafe { core::mem::transmute(job) };
    job();
    loop {
        let _ = ecall(HSM, 1, [0; 6]);
    }
}

/// Has the other hart do this.
pub fn start_other_hart(job: fn()) -> bool {
    JOB.store(job as usize, Ordering::Release);
    start_other_hart_at(second_hart as *const () as u64) == Verdict::Answered
}

/// Starts the other hart anywhere.
pub fn start_other_hart_at(address: u64) -> Verdict {
    let (error, _) = ecall(HSM, 0, [other(), address, 0, 0, 0, 0]);
    Verdict::answered_if(error == 0)
}

pub(super) fn wait_for_other_hart() -> bool {
    let limit = now() + PATIENCE;
    while now() < limit {
        if ecall(HSM, 2, [other(), 0, 0, 0, 0, 0]) == (0, STOPPED) {
            return true;
        }
    }
    false
}

/// Has the other hart do this, and waits until it has stopped.
pub fn on_other_hart(job: fn()) -> bool {
    start_other_hart(job) && wait_for_other_hart()
}

/// Does this on both harts at once.
pub fn on_both_harts(job: fn()) -> Verdict {
    let started = start_other_hart(job);
    job();
    Verdict::Answered.unless(
        !(started && wait_for_other_hart()),
        "the other hart did not start or stop",
    )
}

static WINDOW: AtomicUsize = AtomicUsize::new(0);

/// This hart sets a device up and uses it, the other one resets it all the while.
pub fn two_harts(device: Virtio) -> Verdict {
    STOP.store(false, Ordering::Relaxed);
    WINDOW.store(usize::try_from(device.base).unwrap_or(0), Ordering::Relaxed);
    let started = start_other_hart(|| {
        while !STOP.load(Ordering::Relaxed) {
            super::bare::store32(WINDOW.load(Ordering::Relaxed) as u64 + register::STATUS, 0);
        }
    });
    (0..100).for_each(|_| {
        device.up().kick(0);
    });
    STOP.store(true, Ordering::Relaxed);
    Verdict::Answered.unless(
        !(started && wait_for_other_hart()),
        "the other hart did not start or stop",
    )
}
