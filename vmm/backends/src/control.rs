//! The event loop's side of a machine's control socket. What is said there is `rvmm_control`'s matter.
//!
//! ```text
//!   client ─► Session ─► Machine::call(request, Answer) ─► later, from any thread: Answer::send ─► notices ─► client
//! ```
//!
//! A machine answers when it can, so a request that takes time holds up nobody. Bounds: [`MAX_CONNECTIONS`] clients,
//! [`MAX_CALLS`] unanswered requests of each, [`MAX_PENDING`] bytes that a client has not read, [`MAX_DESCRIPTORS`] that
//! came along with no request yet that takes them.

mod answer;
mod receive;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rvmm_control::session::{MAX_PENDING, Session};
use rvmm_control::{Refusal, RefusalCode, Reply, Request};

use crate::socket::{self, ListenError};
pub use answer::{Answer, Notifier};
use answer::{Notice, Notices, Ticket};
use receive::receive;

/// Most connections at a time; more are closed at once.
pub const MAX_CONNECTIONS: usize = 16;

/// Most requests of one client that wait for their answers; more are refused.
pub const MAX_CALLS: usize = 16;

/// Most descriptors of a client that wait for their request: as many as a tap has queues.
pub const MAX_DESCRIPTORS: usize = 16;

// What an event belongs to; connections have the numbers from CONNECTIONS on.
const LISTENER: u32 = 0;
const NOTICE: u32 = 1;
const CONNECTIONS: u32 = 2;

/// The machine, as the control socket sees it. Called from the event loop, so it may not wait.
pub trait Machine {
    /// Takes a request, and the descriptors that came along if it is one that takes them. The answer may be sent at
    /// once or later; dropped, it is a refusal.
    fn call(&mut self, request: Request, opened: Vec<OwnedFd>, answer: Answer);
}

/// The control socket. A subscriber of the event loop.
pub struct Server<M> {
    machine: M,
    listener: UnixListener,
    notices: Arc<Notices>,
    connections: Vec<Option<Connection>>,
    /// How many connections there were: an answer must not reach whoever has its asker's place by now.
    accepted: u64,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    session: Session,
    /// What came along and no request took.
    opened: Vec<OwnedFd>,
    /// Which one of all that were accepted.
    serial: u64,
    /// Requests without an answer yet.
    unanswered: usize,
    /// The client sends nothing more; it is kept for what it still wants to read.
    half_closed: bool,
    watched: EventSet,
}

/// The control socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be listened on.
    #[error("no control socket")]
    Listen(#[source] ListenError),
    /// The kernel gave no event descriptor.
    #[error("no event descriptor for the control socket")]
    Event(#[source] io::Error),
}

// === impl Server ===

impl<M: Machine> Server<M> {
    /// Listens at `path` on behalf of a machine.
    ///
    /// # Errors
    /// [`ControlError`], with the path.
    pub fn listen(path: &Path, machine: M) -> Result<Self, ControlError> {
        Ok(Self {
            machine,
            listener: socket::listen(path).map_err(ControlError::Listen)?,
            notices: Arc::new(Notices::new().map_err(ControlError::Event)?),
            connections: std::iter::repeat_with(|| None).take(MAX_CONNECTIONS).collect(),
            accepted: 0,
        })
    }

    /// A way to tell clients of events.
    pub fn notifier(&self) -> Notifier {
        Notifier::new(Arc::clone(&self.notices))
    }

    /// Sends the clients what waits for them, at most until `deadline`: the last thing to do before the process ends.
    pub fn drain(&mut self, deadline: Instant) {
        self.take_notices();
        loop {
            let connections = self.connections.iter_mut().flatten();
            let blocked: Vec<_> = connections
                .filter_map(|connection| {
                    let alive = connection.send();
                    (alive && connection.is_behind()).then_some(&*connection)
                })
                .collect();
            let mut waiting: Vec<_> = blocked
                .iter()
                .map(|connection| PollFd::new(&connection.stream, PollFlags::OUT))
                .collect();
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(timeout) = Timespec::try_from(left) else {
                return;
            };
            if waiting.is_empty() || left == Duration::ZERO {
                return;
            }
            // Interrupted or not: whoever can be written to is tried again.
            poll(&mut waiting, Some(&timeout)).ok();
        }
    }

    fn take_notices(&mut self) {
        for notice in self.notices.take() {
            match notice {
                Notice::Event(event) => {
                    let connections = self.connections.iter_mut().flatten();
                    connections.for_each(|connection| connection.session.notify(&event));
                }
                Notice::Reply(ticket, reply) => {
                    let mut connections = self.connections.iter_mut().flatten();
                    // Its asker may be gone.
                    if let Some(asker) = connections.find(|connection| connection.serial == ticket.asker) {
                        asker.unanswered = asker.unanswered.saturating_sub(1);
                        asker.session.answer(ticket.id, reply);
                    }
                }
            }
        }
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        while let Some(stream) = socket::accept(&self.listener) {
            let free = self.connections.iter_mut().zip(CONNECTIONS..);
            let Some((place, number)) = free.into_iter().find(|(place, _)| place.is_none()) else {
                continue; // Closed: a client that is refused without a word tries again.
            };
            let events = Events::with_data(&stream, number, EventSet::IN);
            if ops.add(events).is_ok() {
                self.accepted += 1;
                *place = Some(Connection::new(stream, self.accepted));
            }
        }
    }

    /// Reads what a client wants, answers, and sends; a client that is done for is forgotten.
    fn serve(&mut self, index: usize, readable: bool, ops: &mut EventOps<'_>) {
        let Some(place) = self.connections.get_mut(index) else {
            return;
        };
        let Some(connection) = place else { return };
        if readable && !connection.half_closed {
            connection.receive(&mut self.machine, &self.notices);
        }
        let number = u32::try_from(index).expect("connections are few") + CONNECTIONS;
        if !connection.send() || connection.is_done() || !connection.watch(number, ops) {
            self.forget(index, ops);
        }
    }

    fn forget(&mut self, index: usize, ops: &mut EventOps<'_>) {
        if let Some(connection) = self.connections.get_mut(index).and_then(Option::take) {
            // It was added, so it can be removed.
            ops.remove(Events::empty(&connection.stream)).ok();
        }
    }
}

impl<M: Machine> MutEventSubscriber for Server<M> {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        // Refused only when the kernel has no memory left; then nobody can ask, and the guest goes on.
        ops.add(Events::with_data(&self.listener, LISTENER, EventSet::IN))
            .ok();
        ops.add(Events::with_data(self.notices.wake_event(), NOTICE, EventSet::IN))
            .ok();
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            LISTENER => self.accept(ops),
            NOTICE => {
                self.take_notices();
                (0..MAX_CONNECTIONS).for_each(|index| self.serve(index, false, ops));
            }
            connection => {
                let set = events.event_set();
                if let Ok(index) = usize::try_from(connection - CONNECTIONS) {
                    self.serve(index, set != EventSet::OUT, ops);
                    // Nobody is left to read an answer, and the loop would be told of that for ever.
                    if set.intersects(EventSet::HANG_UP | EventSet::ERROR) {
                        self.forget(index, ops);
                    }
                }
            }
        }
    }
}

impl<M> fmt::Debug for Server<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

// === impl Connection ===

impl Connection {
    fn new(stream: UnixStream, serial: u64) -> Self {
        Self {
            stream,
            session: Session::default(),
            opened: Vec::new(),
            serial,
            unanswered: 0,
            half_closed: false,
            watched: EventSet::IN,
        }
    }

    fn receive(&mut self, machine: &mut impl Machine, notices: &Arc<Notices>) {
        let mut buffer = [0; 4096];
        loop {
            match receive(&self.stream, &mut buffer, &mut self.opened) {
                Ok(count @ 1..) => {
                    self.session.feed(buffer.get(..count).unwrap_or_default());
                    self.answer(machine, notices);
                    if self.session.is_broken() || self.opened.len() > MAX_DESCRIPTORS {
                        self.half_closed = true;
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(0) | Err(_) => {
                    self.half_closed = true;
                    return;
                }
            }
        }
    }

    fn answer(&mut self, machine: &mut impl Machine, notices: &Arc<Notices>) {
        while let Some(call) = self.session.next_call() {
            if self.unanswered >= MAX_CALLS {
                let text = format!("{MAX_CALLS} requests of this connection wait for their answers");
                let busy = Refusal::new(RefusalCode::Busy, text);
                self.session.answer(call.id, Reply::Refused(busy));
                continue;
            }
            if call.request == Request::Subscribe {
                self.session.subscribe();
            }
            self.unanswered += 1;
            let ticket = Ticket {
                asker: self.serial,
                id: call.id,
            };
            let opened = match call.request {
                Request::AddDisk { .. } | Request::AddNet { .. } => std::mem::take(&mut self.opened),
                _ => Vec::new(),
            };
            machine.call(call.request, opened, Answer::new(Arc::clone(notices), ticket));
        }
    }

    /// Sends as much as the client takes; false when it is gone.
    fn send(&mut self) -> bool {
        while self.is_behind() {
            match rustix::io::write(&self.stream, self.session.pending()) {
                Ok(count) => self.session.written(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    fn is_behind(&self) -> bool {
        !self.session.pending().is_empty()
    }

    /// A client that asked and shut its sending half gets its answers, then it is done; so does one that broke the
    /// protocol.
    fn is_done(&self) -> bool {
        let given_up = self.session.is_broken() && self.session.pending().len() > MAX_PENDING;
        let has_all = self.half_closed && self.unanswered == 0;
        given_up || !self.is_behind() && (has_all || self.session.is_broken())
    }

    /// Watches for what can happen next; false where the event loop refuses.
    fn watch(&mut self, number: u32, ops: &mut EventOps<'_>) -> bool {
        let mut wanted = EventSet::empty();
        wanted.set(EventSet::IN, !self.half_closed);
        wanted.set(EventSet::OUT, self.is_behind());
        if wanted == self.watched {
            return true;
        }
        self.watched = wanted;
        ops.modify(Events::with_data(&self.stream, number, wanted))
            .is_ok()
    }
}

#[cfg(test)]
mod tests;
