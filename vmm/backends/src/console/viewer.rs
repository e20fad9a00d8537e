//! One viewer of the console: a way in, a way out, and a cursor.
//!
//! Both ways are watched apart, as they end apart: a viewer that closes its sending half still sees output, and what a
//! vanished viewer typed last still reaches the guest. A viewer is over when both ways are.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use event_manager::{Error, EventOps, EventSet, Events};
use rustix::io::Errno;

use super::cursor::Cursor;
use super::hub::{Hub, MAX_INPUT};
use super::raw::is_ours;
use super::terminal::LEAVE;

/// Bytes written to a viewer at a time.
const PIECE: usize = 8 << 10;

/// A way in or out, and what the event loop watches it for.
#[derive(Debug)]
pub(super) struct Way {
    fd: OwnedFd,
    token: u32,
    watched: Watched,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    /// Not at all.
    No,
    /// For this, and for its end.
    For(EventSet),
    /// It cannot be: a file, or `/dev/null`. It is always ready.
    Never,
}

#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) input: Option<Way>,
    pub(super) output: Option<Way>,
    cursor: Cursor,
    /// Ctrl-] leaves: someone types here.
    interactive: bool,
}

/// How far [`Viewer::write`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// To the end.
    All,
    /// To where the viewer takes no more for now.
    Blocked,
    /// Nobody is there any more.
    Ended,
}

/// How [`Viewer::read`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// Nothing more to read for now, or no more input from here.
    Waits,
    /// No space for input; something was taken before that if true.
    Full(bool),
    /// [`LEAVE`] was typed.
    Left,
    /// The terminal is another job's for now.
    Elsewhere,
}

// === impl Way ===

impl Way {
    pub(super) fn new(fd: OwnedFd, token: u32) -> Self {
        Self {
            fd,
            token,
            watched: Watched::No,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Watches for this from now on; false where the event loop has no room for it.
    fn watch(&mut self, ops: &mut EventOps<'_>, set: EventSet) -> bool {
        let events = Events::with_data_raw(self.fd.as_raw_fd(), self.token, set);
        let changed = match self.watched {
            Watched::Never => return true,
            Watched::For(now) if now == set => return true,
            Watched::For(_) => ops.modify(events),
            Watched::No => ops.add(events),
        };
        self.watched = match changed {
            Ok(()) => Watched::For(set),
            Err(Error::Epoll(errno)) if errno.errno() == Errno::PERM.raw_os_error() => Watched::Never,
            Err(_) => return false,
        };
        true
    }

    /// Stops watching, for its end too: the loop would be told of that for ever.
    fn unwatch(&mut self, ops: &mut EventOps<'_>) {
        if let Watched::For(set) = self.watched {
            // It was added, so it can be removed.
            ops.remove(Events::with_data_raw(self.fd.as_raw_fd(), self.token, set))
                .ok();
            self.watched = Watched::No;
        }
    }
}

// === impl Viewer ===

impl Viewer {
    pub(super) fn new(hub: &Hub, input: Way, output: Way, interactive: bool) -> Self {
        Self {
            input: Some(input),
            output: Some(output),
            cursor: hub.replay(),
            interactive,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.input.is_none() && self.output.is_none()
    }

    /// Whether input waits here until there is space for it.
    pub(super) fn is_paused(&self) -> bool {
        self.input
            .as_ref()
            .is_some_and(|input| matches!(input.watched, Watched::No | Watched::Never))
    }

    /// Writes what is new and watches for what the viewer can do next.
    pub(super) fn flush(&mut self, hub: &Hub, ops: &mut EventOps<'_>) {
        let written = self.write(hub);
        let Some(output) = &mut self.output else { return };
        let alive = match written {
            Written::All => output.watch(ops, EventSet::empty()),
            Written::Blocked => output.watch(ops, EventSet::OUT),
            Written::Ended => false,
        };
        if !alive {
            self.end_output(ops);
        }
    }

    /// Writes what was printed before this call, as far as the viewer takes it without waiting.
    pub(super) fn write(&mut self, hub: &Hub) -> Written {
        let Some(output) = &self.output else {
            return Written::Ended;
        };
        let end = hub.end();
        let mut piece = [0; PIECE];
        while !self.cursor.has_reached(end) {
            let count = hub.peek(&mut self.cursor, &mut piece);
            match rustix::io::write(&output.fd, piece.get(..count).unwrap_or_default()) {
                Ok(written) => self.cursor.advance(written),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Written::Blocked,
                Err(_) => return Written::Ended,
            }
        }
        Written::All
    }

    /// Reads what was typed, for as long as there is space for it, and watches for more.
    pub(super) fn read(&mut self, hub: &Hub, ops: &mut EventOps<'_>) -> ReadEnd {
        let mut buffer = [0; MAX_INPUT];
        let mut took = false;
        loop {
            let Some(input) = &mut self.input else {
                return ReadEnd::Waits;
            };
            let Some(room) = buffer
                .get_mut(..hub.input_space())
                .filter(|room| !room.is_empty())
            else {
                input.unwatch(ops);
                return ReadEnd::Full(took);
            };
            match rustix::io::read(&input.fd, &mut *room) {
                Ok(count @ 1..) => {
                    let typed = room.get(..count).unwrap_or_default();
                    let leave = typed.iter().position(|&byte| self.interactive && byte == LEAVE);
                    hub.offer(typed.get(..leave.unwrap_or(count)).unwrap_or_default());
                    took = true;
                    if leave.is_some() {
                        self.end_input(ops);
                        return ReadEnd::Left;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if input.watch(ops, EventSet::IN) => return ReadEnd::Waits,
                Err(Errno::IO) if self.interactive && !is_ours(input.fd()) => {
                    input.unwatch(ops);
                    return ReadEnd::Elsewhere;
                }
                Ok(0) | Err(_) => self.end_input(ops),
            }
        }
    }

    pub(super) fn end_input(&mut self, ops: &mut EventOps<'_>) {
        if let Some(mut input) = self.input.take() {
            input.unwatch(ops);
        }
    }

    pub(super) fn end_output(&mut self, ops: &mut EventOps<'_>) {
        if let Some(mut output) = self.output.take() {
            output.unwatch(ops);
        }
    }
}
