//! The one queue of everything that a machine's life depends on, so that concurrent wishes have an order.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rvmm_backends::News;
use rvmm_backends::control::{Answer, Machine as Controlled};
use rvmm_control::Request;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Something that the machine's life depends on.
#[derive(Debug)]
pub enum Happening {
    /// The boot with this number has news.
    News(u64, News),
    /// A client of the control socket wants something, and what it sent along. There are never more than the socket's bounds allow.
    Call(Request, Vec<OwnedFd>, Answer),
    /// The device that the boot with this number was given, or is to lose, is in or out, or neither, and why.
    Plugged(u64, Result<(), String>),
    /// The guest agent began to listen, or stopped.
    Agent(bool),
    /// Someone wants the machine to end, and who.
    Kill(&'static str),
}

/// Where happenings are put, from any thread.
#[derive(Clone)]
pub struct Inbox {
    sender: Sender<Happening>,
    wake: Arc<EventFd>,
}

/// Wakes the event loop; what woke it is in the queue.
pub struct Waker(Arc<EventFd>);

/// The control socket's way to the machine.
pub struct Door(pub Inbox);

// === impl Inbox ===

impl Inbox {
    /// An empty queue, and its other end.
    ///
    /// # Errors
    /// The kernel's, when it gives no event descriptor.
    pub fn new() -> std::io::Result<(Self, Receiver<Happening>)> {
        let (sender, queue) = mpsc::channel();
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        Ok((Self { sender, wake }, queue))
    }

    /// Puts something in and wakes the event loop.
    pub fn put(&self, happening: Happening) {
        // Both fail only when the supervisor is gone or is awake already.
        self.sender.send(happening).ok();
        self.wake.write(1).ok();
    }

    /// What the event loop is to have.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }
}

// === impl Waker ===

impl MutEventSubscriber for Waker {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        // Refused only when the kernel has no memory left.
        ops.add(Events::new_raw(self.0.as_raw_fd(), EventSet::IN)).ok();
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        self.0.read().ok();
    }
}

// === impl Door ===

impl Controlled for Door {
    fn call(&mut self, request: Request, opened: Vec<OwnedFd>, answer: Answer) {
        self.0.put(Happening::Call(request, opened, answer));
    }
}
