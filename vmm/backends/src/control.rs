//! The event loop's side of a machine's control socket. What is said there is `rvmm_control`'s matter.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rvmm_control::session::{MAX_PENDING, Session};
use rvmm_control::{Event, Info, Reply, Request};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::socket::{self, ListenError};

/// Most connections at a time; more are closed at once.
pub const MAX_CONNECTIONS: usize = 16;

/// Most events that wait for the event loop. A machine has few, so this is never reached by a loop that runs.
const MAX_EVENTS: usize = 256;

// What an event belongs to; connections have the numbers from CONNECTIONS on.
const LISTENER: u32 = 0;
const NOTICE: u32 = 1;
const CONNECTIONS: u32 = 2;

/// The machine, as the control socket sees it. Called from the event loop, so neither call may wait.
pub trait Machine {
    /// Who and how the machine is.
    fn info(&self) -> Info;
    /// Begins to end the machine. The answer is sent before the process is gone only if it ends through the event
    /// loop.
    fn kill(&mut self);
}

/// The control socket. A subscriber of the event loop.
pub struct Server<M> {
    machine: M,
    listener: UnixListener,
    notices: Arc<Notices>,
    connections: Vec<Option<Connection>>,
}

/// Tells the subscribed clients what happens; may be called from any thread.
#[derive(Clone)]
pub struct Notifier {
    notices: Arc<Notices>,
}

struct Notices {
    wake: EventFd,
    waiting: Mutex<VecDeque<Event>>,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    session: Session,
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

// === impl Notifier ===

impl Notifier {
    /// Sends an event to all who want to know.
    pub fn notify(&self, event: Event) {
        let mut waiting = self.notices.waiting();
        if waiting.len() < MAX_EVENTS {
            waiting.push_back(event);
        }
        drop(waiting);
        // Fails only when the counter is about to overflow, and then the loop is awake anyway.
        self.notices.wake.write(1).ok();
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}

// === impl Notices ===

impl Notices {
    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<Event>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Server ===

impl<M: Machine> Server<M> {
    /// Listens at `path` on behalf of a machine.
    ///
    /// # Errors
    /// [`ControlError`], with the path.
    pub fn listen(path: &Path, machine: M) -> Result<Self, ControlError> {
        let notices = Notices {
            wake: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(ControlError::Event)?,
            waiting: Mutex::default(),
        };
        Ok(Self {
            machine,
            listener: socket::listen(path).map_err(ControlError::Listen)?,
            notices: Arc::new(notices),
            connections: std::iter::repeat_with(|| None).take(MAX_CONNECTIONS).collect(),
        })
    }

    /// A way to tell clients of events.
    pub fn notifier(&self) -> Notifier {
        Notifier {
            notices: Arc::clone(&self.notices),
        }
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
        self.notices.wake.read().ok();
        let events: Vec<_> = self.notices.waiting().drain(..).collect();
        for event in &events {
            for connection in self.connections.iter_mut().flatten() {
                connection.session.notify(event);
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
                *place = Some(Connection::new(stream));
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
            connection.receive(&mut self.machine);
        }
        let number = u32::try_from(index).expect("connections are few") + CONNECTIONS;
        if !connection.send() || connection.is_done() || !connection.watch(number, ops) {
            // It was added, so it can be removed.
            ops.remove(Events::empty(&connection.stream)).ok();
            *place = None;
        }
    }
}

impl<M: Machine> MutEventSubscriber for Server<M> {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        // Refused only when the kernel has no memory left; then nobody can ask, and the guest goes on.
        ops.add(Events::with_data(&self.listener, LISTENER, EventSet::IN))
            .ok();
        ops.add(Events::with_data(&self.notices.wake, NOTICE, EventSet::IN))
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
                let readable = events.event_set() != EventSet::OUT;
                if let Ok(index) = usize::try_from(connection - CONNECTIONS) {
                    self.serve(index, readable, ops);
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
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            session: Session::default(),
            half_closed: false,
            watched: EventSet::IN,
        }
    }

    fn receive(&mut self, machine: &mut impl Machine) {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.stream, &mut buffer) {
                Ok(count @ 1..) => {
                    self.session.feed(buffer.get(..count).unwrap_or_default());
                    self.answer(machine);
                    if self.session.is_broken() {
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

    fn answer(&mut self, machine: &mut impl Machine) {
        while let Some(call) = self.session.next_call() {
            let reply = match call.request {
                Request::Info => Reply::Info(Box::new(machine.info())),
                Request::Kill => {
                    machine.kill();
                    Reply::Done
                }
                Request::Subscribe => {
                    self.session.subscribe();
                    Reply::Done
                }
            };
            self.session.answer(call.id, reply);
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
        given_up || !self.is_behind() && (self.half_closed || self.session.is_broken())
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
