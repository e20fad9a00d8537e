//! The descriptors between a guest and who serves its rings in rvmm's place.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// One descriptor of each kind a queue.
pub struct Wires {
    /// The guest rings these, the server hears them.
    pub kicks: Vec<EventFd>,
    /// The server rings these.
    pub calls: Vec<EventFd>,
}

// === impl Wires ===

impl Wires {
    /// For so many queues.
    ///
    /// # Errors
    /// The kernel gives no more descriptors.
    pub fn new(queues: usize) -> io::Result<Self> {
        let some = || (0..queues).map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC));
        Ok(Self {
            kicks: some().collect::<io::Result<_>>()?,
            calls: some().collect::<io::Result<_>>()?,
        })
    }

    /// The same wires, to be held at their other end.
    ///
    /// # Errors
    /// The kernel gives no more descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        let cloned = |events: &[EventFd]| events.iter().map(EventFd::try_clone).collect::<io::Result<_>>();
        Ok(Self {
            kicks: cloned(&self.kicks)?,
            calls: cloned(&self.calls)?,
        })
    }
}

/// An event's descriptor.
pub fn borrowed(event: &EventFd) -> BorrowedFd<'_> {
    #[expect(
        unsafe_code,
        reason = "vmm-sys-util's eventfd has no safe way to its descriptor"
    )]
    // SAFETY: the descriptor is the event's own, and is open for as long as the event is borrowed.
    unsafe {
        BorrowedFd::borrow_raw(event.as_raw_fd())
    }
}
