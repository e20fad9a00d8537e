//! What reaches clients later: answers to their requests, and events. Both may come from any thread.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rvmm_control::{Event, Refusal, RefusalCode, Reply};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Most events that wait for the event loop. A machine has few, so this is never reached by a loop that runs.
/// Answers are bounded by the requests that may be unanswered.
const MAX_EVENTS: usize = 256;

/// Tells the subscribed clients what happens; may be called from any thread.
#[derive(Clone)]
pub struct Notifier {
    notices: Arc<Notices>,
}

/// The one answer that a request gets. Dropped without one, the request is refused.
pub struct Answer {
    notices: Arc<Notices>,
    ticket: Option<Ticket>,
}

/// Whom an answer goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The serial number of the connection.
    pub asker: u64,
    /// The call's.
    pub id: u64,
}

pub(super) enum Notice {
    Event(Event),
    Reply(Ticket, Reply),
}

/// What waits for the event loop.
pub(super) struct Notices {
    wake: EventFd,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    notices: VecDeque<Notice>,
    events: usize,
}

// === impl Notices ===

impl Notices {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            waiting: Mutex::default(),
        })
    }

    /// Becomes readable when there is something to take.
    pub(super) fn wake_event(&self) -> &EventFd {
        &self.wake
    }

    /// All that waits, in its order.
    pub(super) fn take(&self) -> VecDeque<Notice> {
        // Empty when it was taken already.
        self.wake.read().ok();
        std::mem::take(&mut *self.waiting()).notices
    }

    fn put(&self, notice: Notice) {
        let mut waiting = self.waiting();
        let is_event = matches!(notice, Notice::Event(_));
        if !is_event || waiting.events < MAX_EVENTS {
            waiting.events += usize::from(is_event);
            waiting.notices.push_back(notice);
        }
        drop(waiting);
        // Fails only when the counter is about to overflow, and then the loop is awake anyway.
        self.wake.write(1).ok();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Notifier ===

impl Notifier {
    pub(super) fn new(notices: Arc<Notices>) -> Self {
        Self { notices }
    }

    /// Sends an event to all who want to know.
    pub fn notify(&self, event: Event) {
        self.notices.put(Notice::Event(event));
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(notices: Arc<Notices>, ticket: Ticket) -> Self {
        Self {
            notices,
            ticket: Some(ticket),
        }
    }

    /// Answers the request.
    pub fn send(mut self, reply: Reply) {
        if let Some(ticket) = self.ticket.take() {
            self.notices.put(Notice::Reply(ticket, reply));
        }
    }

    /// Refuses it.
    pub fn refuse(self, refusal: Refusal) {
        self.send(Reply::Refused(refusal));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let gone = Refusal::new(RefusalCode::Failed, "the machine ended before it was done");
            self.notices.put(Notice::Reply(ticket, Reply::Refused(gone)));
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}
