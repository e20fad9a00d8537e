//! The event loop's side of the console: brings output to the viewers and their input to the hub.
//!
//! ```text
//!   guest prints ─► hub wakes us ─► every viewer gets what is new, then we rest for PACE
//!                                   └ PACE over: more came? again. Nothing? the next write wakes us.
//!   viewer types ─► input queue ─► guest; queue full: viewers are not read until the guest takes some
//! ```
//!
//! The rest is what keeps a guest that prints byte by byte from costing a wake-up, a write and a context switch for
//! each of them, while the first byte after a silence, such as an echo, is shown at once.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};

use super::hub::Hub;
use super::raw;
use super::terminal::{Changed, Terminal};
use super::viewer::{ReadEnd, Viewer, Way, Written};
use crate::socket::{self, ListenError};

/// Most viewers at a time, besides this process's terminal.
pub const MAX_VIEWERS: usize = 16;

/// How long output is gathered before it is brought to the viewers again.
const PACE: Duration = Duration::from_millis(4);

/// How often a terminal that is another job's is looked at again: a shell that brings a running job to the front tells
/// nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What one viewer too many reads.
const FULL: &[u8] = b"[rvm: this console has too many viewers]\r\n";

// What an event belongs to; viewers' ways have two numbers each from VIEWERS on.
const WAKE: u32 = 0;
const REST: u32 = 1;
const ROOM: u32 = 2;
const LISTENER: u32 = 3;
const LOOK: u32 = 4;
const VIEWERS: u32 = 5;

/// All viewers of one machine. A subscriber of the event loop.
pub struct Server {
    hub: Hub,
    timer: OwnedFd,
    /// Rings while this process's terminal is another job's.
    look: OwnedFd,
    listener: Option<UnixListener>,
    /// A viewer's place gives its events their numbers. The first place is the terminal's.
    places: Vec<Option<Viewer>>,
    /// The place that is asked first for input when there is space again, so that all get their turn.
    turn: usize,
    /// How far the output was when viewers were last served.
    served: u64,
    terminal: Option<Attached>,
}

struct Attached {
    on_leave: Box<dyn FnMut() + Send>,
    _changed: Changed,
}

// === impl Server ===

impl Server {
    /// A server of this console, without viewers.
    ///
    /// # Errors
    /// The kernel's, when it gives no timer.
    pub fn new(hub: Hub) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self {
            hub,
            timer: rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?,
            look: rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?,
            listener: None,
            places: std::iter::repeat_with(|| None).take(1 + MAX_VIEWERS).collect(),
            turn: 0,
            served: 0,
            terminal: None,
        })
    }

    /// Takes viewers at this socket. To be called before the server is added to the event loop.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(&mut self, path: &Path) -> Result<(), ListenError> {
        self.listener = Some(socket::listen(path)?);
        Ok(())
    }

    /// Makes this process's terminal a viewer; `on_leave` is called when Ctrl-] is typed. To be called before the
    /// server is added to the event loop.
    pub fn attach(&mut self, terminal: Terminal, on_leave: Box<dyn FnMut() + Send>) {
        let interactive = terminal.is_interactive();
        let Terminal {
            input,
            output,
            changed,
        } = terminal;
        let viewer = self.viewer(0, input, output, interactive);
        if let Some(place) = self.places.first_mut() {
            *place = Some(viewer);
        }
        self.terminal = Some(Attached {
            on_leave,
            _changed: changed,
        });
    }

    /// Brings the viewers everything that was printed, for as long as they take it and at most until `deadline`: the
    /// last thing to do before the process ends. The log is brought up to date too.
    pub fn drain(&mut self, deadline: Instant) {
        self.hub.flush_log();
        loop {
            let hub = &self.hub;
            let viewers = self.places.iter_mut().flatten();
            let blocked: Vec<_> = viewers
                .filter_map(|viewer| (viewer.write(hub) == Written::Blocked).then_some(&*viewer))
                .collect();
            let outputs = blocked.iter().filter_map(|viewer| viewer.output.as_ref());
            let mut waiting: Vec<_> = outputs
                .map(|way| PollFd::from_borrowed_fd(way.fd(), PollFlags::OUT))
                .collect();
            let left = deadline.saturating_duration_since(Instant::now());
            if waiting.is_empty() || left.is_zero() {
                return;
            }
            let Ok(timeout) = Timespec::try_from(left) else {
                return;
            };
            // Interrupted or not: whoever can be written to is tried again.
            poll(&mut waiting, Some(&timeout)).ok();
        }
    }

    fn viewer(&self, place: u32, input: OwnedFd, output: OwnedFd, interactive: bool) -> Viewer {
        let token = VIEWERS + 2 * place;
        Viewer::new(
            &self.hub,
            Way::new(input, token),
            Way::new(output, token + 1),
            interactive,
        )
    }

    /// Brings everyone what is new, then rests.
    fn serve(&mut self, ops: &mut EventOps<'_>) {
        self.served = self.hub.end();
        for viewer in self.places.iter_mut().flatten() {
            viewer.flush(&self.hub, ops);
        }
        self.clear_ended();
        self.hub.flush_log();
        if !set_once(&self.timer, PACE) {
            self.hub.rest();
        }
    }

    /// The rest is over. Who prints from now on wakes us; what came meanwhile is served here.
    fn rested(&mut self, ops: &mut EventOps<'_>) {
        if rustix::io::read(&self.timer, &mut [0; 8]).is_err() {
            return; // Armed anew since: that rest still lasts.
        }
        self.hub.rest();
        if self.hub.end() != self.served {
            self.serve(ops);
        }
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        while let Some(stream) = self.listener.as_ref().and_then(socket::accept) {
            let Ok(copy) = stream.try_clone() else { continue };
            let Some(place) = self.free_place(ops) else {
                rustix::io::write(&stream, FULL).ok();
                continue;
            };
            let number = u32::try_from(place).expect("places are few");
            let viewer = self.viewer(number, stream.into(), copy.into(), false);
            if let Some(free) = self.places.get_mut(place) {
                *free = Some(viewer);
            }
            self.begin(place, ops);
        }
    }

    /// A place for one more, if need be of one who no longer looks and whose last input nobody takes.
    fn free_place(&mut self, ops: &mut EventOps<'_>) -> Option<usize> {
        let mut places = self.places.iter_mut().enumerate().skip(1);
        let (place, held) = places.by_ref().find(|(_, held)| match held {
            None => true,
            Some(viewer) => viewer.output.is_none() && viewer.is_paused(),
        })?;
        if let Some(mut viewer) = held.take() {
            viewer.end_input(ops);
        }
        Some(place)
    }

    /// A viewer's first output and input.
    fn begin(&mut self, place: usize, ops: &mut EventOps<'_>) {
        if let Some(Some(viewer)) = self.places.get_mut(place) {
            viewer.flush(&self.hub, ops);
        }
        self.read(place, ops);
    }

    /// Takes a viewer's input; true if some was taken and now there is no more space.
    fn read(&mut self, place: usize, ops: &mut EventOps<'_>) -> bool {
        let Some(Some(viewer)) = self.places.get_mut(place) else {
            return false;
        };
        let end = viewer.read(&self.hub, ops);
        if end == ReadEnd::Left
            && let Some(terminal) = &mut self.terminal
        {
            (terminal.on_leave)();
        }
        if end == ReadEnd::Elsewhere {
            set_once(&self.look, LOOK_AGAIN);
        }
        self.clear_ended();
        end == ReadEnd::Full(true)
    }

    /// The guest took some input: those whose input waits get their turn.
    fn resume(&mut self, ops: &mut EventOps<'_>) {
        self.hub.room_event().read().ok();
        self.hub.deliver();
        let first = self.turn;
        for place in (first..self.places.len()).chain(0..first) {
            let paused = self
                .places
                .get(place)
                .and_then(Option::as_ref)
                .is_some_and(Viewer::is_paused);
            if paused && self.read(place, ops) {
                self.turn = (place + 1) % self.places.len();
                return;
            }
        }
    }

    /// Something happened on one of a viewer's two ways.
    fn viewer_event(&mut self, number: u32, events: Events, ops: &mut EventOps<'_>) {
        let Ok(place) = usize::try_from(number / 2) else {
            return;
        };
        if number.is_multiple_of(2) {
            self.read(place, ops);
        } else if let Some(Some(viewer)) = self.places.get_mut(place) {
            if events.event_set().intersects(EventSet::HANG_UP | EventSet::ERROR) {
                viewer.end_output(ops);
            } else {
                viewer.flush(&self.hub, ops);
            }
            self.clear_ended();
        }
    }

    fn clear_ended(&mut self) {
        for place in &mut self.places {
            if place.as_ref().is_some_and(Viewer::is_over) {
                *place = None;
            }
        }
    }
}

/// Has a timer ring once, after this; false where the kernel refuses.
fn set_once(timer: &OwnedFd, after: Duration) -> bool {
    let once = Itimerspec {
        it_interval: Timespec::default(),
        it_value: Timespec::try_from(after).expect("milliseconds fit"),
    };
    rustix::time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &once).is_ok()
}

impl MutEventSubscriber for Server {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let own = [
            (WAKE, self.hub.wake_event().as_raw_fd()),
            (REST, self.timer.as_raw_fd()),
            (ROOM, self.hub.room_event().as_raw_fd()),
            (LOOK, self.look.as_raw_fd()),
        ];
        let listener = self
            .listener
            .as_ref()
            .map(|listener| (LISTENER, listener.as_raw_fd()));
        for (token, fd) in own.into_iter().chain(listener) {
            // Refused only when the kernel has no memory left; then viewers see nothing, and the guest goes on.
            ops.add(Events::with_data_raw(fd, token, EventSet::IN)).ok();
        }
        self.begin(0, ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            WAKE => {
                self.hub.wake_event().read().ok();
                self.serve(ops);
            }
            REST => self.rested(ops),
            ROOM => self.resume(ops),
            LISTENER => self.accept(ops),
            LOOK => {
                rustix::io::read(&self.look, &mut [0; 8]).ok();
                raw::apply_again();
                self.read(0, ops);
            }
            viewer => self.viewer_event(viewer - VIEWERS, events, ops),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
