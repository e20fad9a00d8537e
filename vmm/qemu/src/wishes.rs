//! What others may ask of the thread that watches QEMU, from any thread and without waiting.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rvmm_backends::plugged::Plugged;
use rvmm_spec::DeviceId;

use crate::errand::OnDone;
use crate::statistics::OnCounted;

/// A wish about a device, and who wants to know what came of it.
type Wished = (Wish, Option<OnDone>);

/// What is wished of a device.
#[derive(Debug)]
pub(crate) enum Wish {
    /// In.
    Plug {
        /// What is plugged in.
        device: Plugged,
        /// Whether it is a disk on a block device.
        is_block_device: bool,
    },
    /// Out.
    Unplug(DeviceId),
}

/// Wishes, and what wakes the thread to look at them.
pub(crate) struct Wishes {
    wake: OwnedFd,
    killed: AtomicBool,
    paused: AtomicBool,
    /// What the balloon is to leave the guest, once; zero if nothing is wanted.
    balloon: AtomicU64,
    /// Devices to be plugged in and pulled out, in this order. Whoever asks waits for the answer before the next.
    errands: Mutex<VecDeque<Wished>>,
    /// Who wants to know what is counted: no more than clients may wait at the control socket.
    counts: Mutex<Vec<OnCounted>>,
    /// Input waits until the socket takes more.
    starved: AtomicBool,
}

// === impl Wishes ===

impl Wishes {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            killed: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            balloon: AtomicU64::new(0),
            errands: Mutex::default(),
            counts: Mutex::default(),
            starved: AtomicBool::new(false),
        })
    }

    /// QEMU is to be killed.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }

    /// The vCPUs are to stand still, or to go on.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// The guest is to be left so many bytes.
    pub(crate) fn balloon(&self, bytes: u64) {
        self.balloon.store(bytes, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn take_balloon(&self) -> Option<u64> {
        Some(self.balloon.swap(0, Ordering::SeqCst)).filter(|bytes| *bytes > 0)
    }

    /// A device is to be plugged in or pulled out; `on_done` is told what came of it. Without, the start needs it.
    pub(crate) fn errand(&self, wish: Wish, on_done: Option<OnDone>) {
        self.errands().push_back((wish, on_done));
        self.wake();
    }

    pub(crate) fn take_errand(&self) -> Option<Wished> {
        self.errands().pop_front()
    }

    fn errands(&self) -> MutexGuard<'_, VecDeque<Wished>> {
        self.errands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Someone wants to know what is counted.
    pub(crate) fn count(&self, on_counted: OnCounted) {
        self.counts().push(on_counted);
        self.wake();
    }

    pub(crate) fn take_counts(&self) -> Vec<OnCounted> {
        std::mem::take(&mut self.counts())
    }

    fn counts(&self) -> MutexGuard<'_, Vec<OnCounted>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The console takes no more input for now; whether it does is to be watched.
    pub(crate) fn starve(&self) {
        self.starved.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn is_starved(&self) -> bool {
        self.starved.load(Ordering::SeqCst)
    }

    pub(crate) fn fed(&self) {
        self.starved.store(false, Ordering::SeqCst);
    }

    fn wake(&self) {
        // Fails only when the counter is about to overflow, and then the thread is awake anyway.
        rustix::io::write(&self.wake, &1u64.to_ne_bytes()).ok();
    }
}

impl fmt::Debug for Wishes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wishes").finish_non_exhaustive()
    }
}

impl AsFd for Wishes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
