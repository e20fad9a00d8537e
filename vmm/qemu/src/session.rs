//! One QEMU from start to end, on one thread of ours.
//!
//! ```text
//!   spawn ─► greeting ─► capabilities ─► cont ─► started ─► SHUTDOWN ─► all sockets closed ─► wait ─► on_end
//!      └────────┴────────────┴────────────┴─► ended before it started: the reason out of its error output
//! ```
//!
//! The thread also brings what the guest prints to the hub. It reads until QEMU has closed everything, so `on_end` comes
//! after the last byte of output.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rvmm_backends::console::{GuestInput, Hub};
use rvmm_spec::Outcome;

use crate::QemuError;
use crate::find::OLDEST;
use crate::process::Sockets;
use crate::qmp::{self, Listener, Reason, Said};

/// Bytes of QEMU's error output that are kept.
const MAX_ERRORS: usize = 4 << 10;

/// Bytes read at a time.
const PIECE: usize = 16 << 10;

/// What others may ask of the thread.
#[derive(Debug)]
pub(crate) struct Wishes {
    wake: OwnedFd,
    killed: AtomicBool,
    /// Input waits until the socket takes more.
    starved: AtomicBool,
}

/// The hub's way into the guest.
pub(crate) struct Keyboard {
    pub socket: UnixStream,
    pub wishes: Arc<Wishes>,
}

/// Which console the hub types into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Focus {
    Uart,
    Console,
}

/// The thread's state.
pub(crate) struct Session {
    child: Child,
    /// Where the guest's output goes.
    hub: Hub,
    focus: Focus,
    wishes: Arc<Wishes>,
    sockets: Sockets,
    errors: ChildStderr,
    /// What QEMU has not closed yet.
    open: Vec<Source>,
    listener: Listener,
    progress: Progress,
    reason: Option<Reason>,
    tail: VecDeque<u8>,
}

/// What the thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Qmp,
    Uart,
    Console,
    Errors,
    /// Someone wishes something.
    Wake,
    /// The console in focus takes input again.
    Room,
}

/// How far the start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Spawned,
    Greeted,
    Listening,
    Started,
}

// === impl Wishes ===

impl Wishes {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            killed: AtomicBool::new(false),
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

    fn wake(&self) {
        // Fails only when the counter is about to overflow, and then the thread is awake anyway.
        rustix::io::write(&self.wake, &1u64.to_ne_bytes()).ok();
    }
}

// === impl Keyboard ===

impl GuestInput for Keyboard {
    fn push(&mut self, bytes: &[u8]) -> usize {
        match (&self.socket).write(bytes) {
            Ok(count) => count,
            // Closed: the input waits in the hub for the next boot.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.wishes.starved.store(true, Ordering::SeqCst);
                self.wishes.wake();
                0
            }
        }
    }
}

// === impl Session ===

impl Session {
    pub(crate) fn new(
        mut child: Child,
        sockets: Sockets,
        focus: Focus,
        hub: Hub,
        wishes: Arc<Wishes>,
    ) -> Self {
        let errors = child.stderr.take().expect("asked for when spawned");
        Self {
            child,
            hub,
            focus,
            wishes,
            sockets,
            errors,
            open: vec![Source::Qmp, Source::Uart, Source::Console, Source::Errors],
            listener: Listener::default(),
            progress: Progress::Spawned,
            reason: None,
            tail: VecDeque::new(),
        }
    }

    /// Runs QEMU to its end. `started` gets the one word that the starter waits for; after a good one, the outcome is
    /// given back, or none if QEMU was killed by our wish.
    pub(crate) fn run(mut self, started: &Sender<Result<(), QemuError>>) -> Option<Outcome> {
        let lived = self.live(started);
        if lived.is_err() {
            self.kill();
        }
        let status = self.end();
        let error = match (lived, self.progress) {
            (Ok(()), Progress::Started) => None,
            (Ok(()), _) => Some(QemuError::Start(self.last_word(status))),
            (Err(error), _) => Some(error),
        };
        match error {
            Some(error) if self.progress != Progress::Started => {
                // A starter that has given up needs no answer.
                started.send(Err(error)).ok();
                None
            }
            _ if self.wishes.is_killed() => None,
            Some(error) => Some(Outcome::Failed(in_full(&error))),
            None => Some(self.outcome(status)),
        }
    }

    /// Serves QEMU until it has closed everything.
    fn live(&mut self, started: &Sender<Result<(), QemuError>>) -> Result<(), QemuError> {
        rustix::io::ioctl_fionbio(&self.errors, true).map_err(system)?;
        while !self.open.is_empty() {
            let before = self.progress;
            for source in self.wait().map_err(system)? {
                self.serve(source)?;
            }
            if before != self.progress && self.progress == Progress::Started {
                // A starter that has given up has also wished for the end.
                started.send(Ok(())).ok();
            }
        }
        Ok(())
    }

    /// What is ready, when something is.
    fn wait(&self) -> rustix::io::Result<Vec<Source>> {
        let mut sources = self.open.clone();
        sources.push(Source::Wake);
        if self.wishes.starved.load(Ordering::SeqCst) {
            sources.push(Source::Room);
        }
        let flags = |source| {
            if source == Source::Room {
                PollFlags::OUT
            } else {
                PollFlags::IN
            }
        };
        let polled = sources
            .iter()
            .map(|&source| PollFd::from_borrowed_fd(self.fd(source), flags(source)));
        let mut polled: Vec<_> = polled.collect();
        match poll(&mut polled, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
        let ready = sources
            .iter()
            .zip(&polled)
            .filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(&source, _)| source).collect())
    }

    fn fd(&self, source: Source) -> BorrowedFd<'_> {
        match source {
            Source::Qmp => self.sockets.qmp.as_fd(),
            Source::Uart => self.sockets.uart.as_fd(),
            Source::Console => self.sockets.console.as_fd(),
            Source::Errors => self.errors.as_fd(),
            Source::Wake => self.wishes.wake.as_fd(),
            Source::Room if self.focus == Focus::Uart => self.sockets.uart.as_fd(),
            Source::Room => self.sockets.console.as_fd(),
        }
    }

    fn serve(&mut self, source: Source) -> Result<(), QemuError> {
        if source == Source::Room {
            self.wishes.starved.store(false, Ordering::SeqCst);
            self.hub.input_room();
            return Ok(());
        }
        let mut piece = [0; PIECE];
        let count = match rustix::io::read(self.fd(source), &mut piece) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            // A broken stream is a closed one.
            read => read.unwrap_or(0),
        };
        if count == 0 {
            self.open.retain(|open| *open != source);
        }
        let bytes = piece.get(..count).unwrap_or_default();
        match source {
            Source::Qmp => self.hear(bytes)?,
            Source::Uart | Source::Console => self.hub.write(bytes),
            Source::Errors => {
                self.tail.extend(bytes);
                self.tail.drain(..self.tail.len().saturating_sub(MAX_ERRORS));
            }
            Source::Wake if self.wishes.is_killed() => self.kill(),
            Source::Wake | Source::Room => {}
        }
        Ok(())
    }

    /// Obeys QMP.
    fn hear(&mut self, bytes: &[u8]) -> Result<(), QemuError> {
        for said in self.listener.hear(bytes).map_err(QemuError::Qmp)? {
            match (self.progress, said) {
                (Progress::Spawned, Said::Greeting((major, minor, micro))) => {
                    if (major, minor) < OLDEST {
                        return Err(QemuError::Version(format!("{major}.{minor}.{micro}")));
                    }
                    self.say(qmp::CAPABILITIES, Progress::Greeted)?;
                }
                (Progress::Greeted, Said::Done) => self.say(qmp::CONTINUE, Progress::Listening)?,
                (Progress::Listening, Said::Done) => self.progress = Progress::Started,
                (_, Said::Refused(why)) => return Err(QemuError::Start(why)),
                (_, Said::Shutdown(reason)) => self.reason = Some(reason),
                _ => {}
            }
        }
        Ok(())
    }

    fn say(&mut self, command: &[u8], next: Progress) -> Result<(), QemuError> {
        self.progress = next;
        // Two short lines in all, which a socket takes at once.
        (&self.sockets.qmp).write_all(command).map_err(QemuError::System)
    }

    fn kill(&mut self) {
        // It may have ended by itself in this moment.
        self.child.kill().ok();
    }

    /// Waits for the process itself.
    fn end(&mut self) -> Option<ExitStatus> {
        self.hub.set_input(None);
        self.child.wait().ok()
    }

    fn outcome(&self, status: Option<ExitStatus>) -> Outcome {
        match &self.reason {
            Some(Reason::GuestShutdown) => Outcome::Poweroff,
            Some(Reason::GuestReset) => Outcome::Reset,
            Some(Reason::GuestPanic) => {
                let code = status.and_then(|status| status.code()).unwrap_or_default();
                Outcome::Failed(format!("the guest switched itself off with failure code {code}"))
            }
            Some(Reason::Other(word)) => Outcome::Failed(format!("QEMU was ended from outside ({word})")),
            None => Outcome::Failed(format!("QEMU ended by itself: {}", self.last_word(status))),
        }
    }

    /// Why QEMU ended: in its own words, or by its exit status.
    fn last_word(&self, status: Option<ExitStatus>) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        let status = || status.map_or_else(|| "no exit status".to_owned(), |status| status.to_string());
        complaint(&String::from_utf8_lossy(&tail)).unwrap_or_else(status)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.kill();
        self.end();
    }
}

fn system(errno: Errno) -> QemuError {
    QemuError::System(errno.into())
}

/// An error with what led to it.
fn in_full(error: &QemuError) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(error) = inner {
        text = format!("{text}: {error}");
        inner = error.source();
    }
    text
}

/// The line of QEMU's error output that says why, without the program's name before it.
fn complaint(errors: &str) -> Option<String> {
    let mut lines = errors.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.find(|line| !line.contains("warning:"))?;
    let (before, after) = line.split_once(": ").unwrap_or(("", line));
    let text = if before.contains("qemu-system") {
        after
    } else {
        line
    };
    Some(text.chars().filter(|c| !c.is_control()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complaint_is_the_first_line_that_is_not_a_warning() {
        let errors = "qemu-system-riscv64: warning: disabling zfa\n\
             qemu-system-riscv64: -device x: Failed to get \"write\" lock\nIs another process using the image?\n";
        assert_eq!(
            complaint(errors).unwrap(),
            "-device x: Failed to get \"write\" lock"
        );
        assert_eq!(complaint("\n\n"), None);
    }

    #[test]
    fn escape_sequences_do_not_get_through() {
        assert_eq!(complaint("bad\x1b[2J file").unwrap(), "bad[2J file");
    }
}
