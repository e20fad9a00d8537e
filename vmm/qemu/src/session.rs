//! One QEMU from start to end, on one thread of ours.
//!
//! ```text
//!   spawn ─► greeting ─► capabilities ─► what is plugged in ─► cont ─► Running ─► SHUTDOWN ─► all sockets closed ─► wait ─► Ended
//!      │                                           ├ stop ─► STOP: Paused ─► cont ─► RESUME: Running
//!      └────────┴────────────┴────────────┴─► ended before it started: the reason out of its error output
//! ```
//!
//! A machine that is to start paused is told `stop` in place of the first `cont`: QEMU, which waits for its vCPUs' first word,
//! only agrees, and `Paused` is told without a STOP.
//!
//! The thread also brings what the guest prints to the hub, and carries the guest agent's words. It reads until QEMU has
//! closed everything, so the end is told after the last byte of output.

mod errands;
mod wished;

use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStderr, ExitStatus};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rvmm_backends::console::Hub;
use rvmm_backends::{Agent, News, OnNews};
use rvmm_spec::Outcome;
use tempfile::TempDir;

use crate::bays::Bays;
use crate::complaint::complaint;
use crate::find::OLDEST;
use crate::process::Sockets;
use crate::qmp::{self, Listener, Reason, Said};
use crate::statistics::Counting;
use crate::wishes::Wishes;
use crate::{PATIENCE, QemuError};
use errands::UnderWay;

/// Bytes of QEMU's error output that are kept.
const MAX_ERRORS: usize = 4 << 10;

/// Bytes that the guest's agent is told at a time.
const MAX_WORDS: usize = 1 << 10;

/// Bytes read at a time.
const PIECE: usize = 16 << 10;

/// Which console the hub types into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Focus {
    Uart,
    Console,
}

/// Whom a session serves.
pub(crate) struct Ends {
    /// Where the guest's output goes.
    pub hub: Hub,
    /// Who speaks with the guest's agent.
    pub agent: Agent,
    /// What is wanted of the session.
    pub wishes: Arc<Wishes>,
    /// The guest has a balloon.
    pub has_balloon: bool,
}

/// The thread's state.
pub(crate) struct Session {
    child: Child,
    ends: Ends,
    focus: Focus,
    /// What QEMU reads while it starts.
    scratch: Option<TempDir>,
    /// By when the guest must run.
    deadline: Instant,
    /// What QEMU was told last: to stand still or not.
    paused: bool,
    sockets: Sockets,
    errors: ChildStderr,
    /// What QEMU has not closed yet.
    open: Vec<Source>,
    listener: Listener,
    progress: Progress,
    reason: Option<Reason>,
    tail: VecDeque<u8>,
    bays: Bays,
    under_way: Option<UnderWay>,
    counting: Counting,
}

/// What the thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Qmp,
    Uart,
    Console,
    /// The guest's agent.
    Agent,
    Errors,
    /// There are words for the agent.
    Words,
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
    /// What was plugged in before this boot is plugged in again.
    Plugging,
    Listening,
    Started,
}

// === impl Session ===

impl Session {
    pub(crate) fn new(
        mut child: Child,
        sockets: Sockets,
        focus: Focus,
        ends: Ends,
        scratch: TempDir,
    ) -> Self {
        let errors = child.stderr.take().expect("asked for when spawned");
        Self {
            child,
            ends,
            focus,
            scratch: Some(scratch),
            deadline: Instant::now() + PATIENCE,
            paused: false,
            sockets,
            errors,
            open: vec![
                Source::Qmp,
                Source::Uart,
                Source::Console,
                Source::Agent,
                Source::Errors,
            ],
            listener: Listener::default(),
            progress: Progress::Spawned,
            reason: None,
            tail: VecDeque::new(),
            bays: Bays::default(),
            under_way: None,
            counting: Counting::default(),
        }
    }

    /// Runs QEMU to its end. The outcome is given back, or none if QEMU was killed by our wish.
    pub(crate) fn run(mut self, on_news: &OnNews) -> Result<Option<Outcome>, QemuError> {
        let lived = self.live(on_news);
        if lived.is_err() {
            self.kill();
        }
        let status = self.end();
        if self.ends.wishes.is_killed() {
            return Ok(None);
        }
        lived?;
        if self.progress != Progress::Started {
            return Err(QemuError::Start(self.last_word(status)));
        }
        Ok(Some(self.outcome(status)))
    }

    /// Serves QEMU until it has closed everything.
    fn live(&mut self, on_news: &OnNews) -> Result<(), QemuError> {
        rustix::io::ioctl_fionbio(&self.errors, true).map_err(system)?;
        while !self.open.is_empty() {
            for source in self.wait().map_err(system)? {
                self.serve(source, on_news)?;
            }
            if self.progress != Progress::Started && Instant::now() >= self.deadline {
                return Err(QemuError::Silent);
            }
            self.go_on(|errand| errand.overdue(Instant::now()))?;
            self.next_errand()?;
        }
        Ok(())
    }

    /// What is ready, when something is, or when the start takes too long.
    fn wait(&self) -> rustix::io::Result<Vec<Source>> {
        let mut sources = self.open.clone();
        sources.extend([Source::Words, Source::Wake]);
        if self.ends.wishes.is_starved() {
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
        let left = self.next_deadline();
        let left = left.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut polled, timeout.as_ref()) {
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
            Source::Agent => self.sockets.agent.as_fd(),
            Source::Errors => self.errors.as_fd(),
            Source::Words => self.ends.agent.output_fd(),
            Source::Wake => self.ends.wishes.as_fd(),
            Source::Room if self.focus == Focus::Uart => self.sockets.uart.as_fd(),
            Source::Room => self.sockets.console.as_fd(),
        }
    }

    fn serve(&mut self, source: Source, on_news: &OnNews) -> Result<(), QemuError> {
        if source == Source::Room {
            self.ends.wishes.fed();
            self.ends.hub.input_room();
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
            Source::Qmp => self.hear(bytes, on_news)?,
            Source::Uart | Source::Console => self.ends.hub.write(bytes),
            Source::Agent => self.ends.agent.hear(bytes),
            Source::Errors => {
                self.tail.extend(bytes);
                self.tail.drain(..self.tail.len().saturating_sub(MAX_ERRORS));
            }
            Source::Words => self.tell_agent(),
            Source::Wake if self.ends.wishes.is_killed() => self.kill(),
            Source::Wake => {
                self.stand_or_go()?;
                self.blow_up()?;
                self.count()?;
            }
            Source::Room => {}
        }
        Ok(())
    }

    /// Obeys QMP.
    fn hear(&mut self, bytes: &[u8], on_news: &OnNews) -> Result<(), QemuError> {
        for said in self.listener.hear(bytes).map_err(QemuError::Qmp)? {
            match (self.progress, said) {
                (Progress::Spawned, Said::Greeting((major, minor, micro))) => {
                    if (major, minor) < OLDEST {
                        return Err(QemuError::Version(format!("{major}.{minor}.{micro}")));
                    }
                    self.say(qmp::CAPABILITIES, Progress::Greeted)?;
                }
                (Progress::Greeted, Said::Done) => {
                    self.progress = Progress::Plugging;
                    self.next_errand()?;
                }
                (_, Said::Errand(answer)) => self.go_on(|errand| errand.answered(answer))?,
                (_, Said::Counted(answer)) => {
                    let bays = &self.bays;
                    self.counting.answered(&answer, |node| bays.disk_of(node));
                    self.count()?;
                }
                (_, Said::Deleted(device)) => self.go_on(|errand| errand.gone(&device))?,
                (Progress::Listening, Said::Done) => {
                    self.progress = Progress::Started;
                    // QEMU has read it, or holds it open.
                    self.scratch = None;
                    on_news(if self.paused { News::Paused } else { News::Running });
                    self.stand_or_go()?;
                }
                // The guest goes on without what was wished of it.
                (Progress::Started, Said::Refused(_)) => {}
                (_, Said::Refused(why)) => return Err(QemuError::Start(why)),
                (_, Said::Shutdown(reason)) => self.reason = Some(reason),
                (Progress::Started, Said::DiskFailed(on)) => on_news(News::DiskFailed(self.bays.named(on))),
                (Progress::Started, Said::Stopped) => {
                    // By itself, where a disk failed.
                    if !self.paused {
                        self.paused = true;
                        self.ends.wishes.pause(true);
                    }
                    on_news(News::Paused);
                }
                (Progress::Started, Said::Resumed) if !self.paused => on_news(News::Running),
                (Progress::Started, Said::Watchdog) => on_news(News::Watchdog),
                (_, Said::Agent(open)) => self.ends.agent.set_open(open),
                _ => {}
            }
        }
        Ok(())
    }

    fn say(&mut self, command: &[u8], next: Progress) -> Result<(), QemuError> {
        self.progress = next;
        // A short line or a few, after QEMU has answered those before, which a socket takes at once.
        (&self.sockets.qmp).write_all(command).map_err(QemuError::System)
    }

    /// Brings the guest's agent what it is to be told: a line or two, for which the socket has room. What it does not
    /// take is lost, as on any wire whose other end does not read.
    fn tell_agent(&self) {
        let mut words = [0; MAX_WORDS];
        let count = self.ends.agent.read(&mut words);
        (&self.sockets.agent)
            .write_all(words.get(..count).unwrap_or_default())
            .ok();
    }

    fn kill(&mut self) {
        // It may have ended by itself in this moment.
        self.child.kill().ok();
    }

    /// Waits for the process itself.
    fn end(&mut self) -> Option<ExitStatus> {
        self.ends.hub.set_input(None);
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
