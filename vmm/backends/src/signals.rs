//! Signals as events: those that end a process come through the event loop, so that every way out restores the
//! terminal, ends the guest and removes the sockets.
//!
//! | signal | what |
//! | --- | --- |
//! | TERM, INT, HUP, QUIT | the machine is ended |
//! | TSTP | with a terminal: it is put back, then the whole process stops, the guest with it; else nothing |
//! | CONT | the terminal is taken again if it is ours |
//! | TTIN, TTOU | blocked: in the background, reading the terminal fails instead of stopping the guest, and writing works |
//!
//! Ctrl-C, Ctrl-Z and Ctrl-\\ at a raw terminal are no signals: they are typed into the guest.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::signal::{self, block_signal, create_sigset};

use crate::console::raw;

/// The signals that are taken, with their names.
const TAKEN: [(i32, &str); 8] = [
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGTSTP, "SIGTSTP"),
    (libc::SIGCONT, "SIGCONT"),
    (libc::SIGTTIN, "SIGTTIN"),
    (libc::SIGTTOU, "SIGTTOU"),
];

/// Size of the kernel's `struct signalfd_siginfo`, which begins with the signal's number.
const RECORD: usize = 128;

/// What a signal means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The process is to end; the signal's name.
    End(&'static str),
    /// It goes on after a stop, or has come to the foreground.
    Continued,
}

/// The process's signals. A subscriber of the event loop.
pub struct Signals {
    fd: OwnedFd,
    tell: Box<dyn FnMut(Told) + Send>,
}

// === impl Signals ===

impl Signals {
    /// Takes the signals for this thread and all that it starts from now on: to be called before any other thread is
    /// started. What they mean is told from the event loop.
    ///
    /// # Errors
    /// The kernel's, when it gives no descriptor.
    pub fn take(tell: Box<dyn FnMut(Told) + Send>) -> io::Result<Self> {
        let numbers = TAKEN.map(|(number, _)| number);
        let set = create_sigset(&numbers)?;
        for number in numbers {
            match block_signal(number) {
                Ok(()) | Err(signal::Error::SignalAlreadyBlocked(_)) => {}
                Err(_) => return Err(io::Error::other("signals cannot be blocked")),
            }
        }
        #[expect(unsafe_code, reason = "neither std nor rustix offer signalfd")]
        // SAFETY: `set` is a valid, initialised signal set, and -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        #[expect(unsafe_code, reason = "the descriptor comes from a raw call")]
        // SAFETY: the call above succeeded, so this is an open descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, tell })
    }

    fn next(&self) -> Option<i32> {
        let mut record = [0; RECORD];
        let count = rustix::io::read(&self.fd, &mut record).ok()?;
        let number = record.first_chunk().filter(|_| count == RECORD)?;
        i32::try_from(u32::from_ne_bytes(*number)).ok()
    }
}

impl MutEventSubscriber for Signals {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        // Refused only when the kernel has no memory left.
        ops.add(Events::new_raw(self.fd.as_raw_fd(), EventSet::IN)).ok();
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        while let Some(number) = self.next() {
            match number {
                libc::SIGTSTP => stop(),
                libc::SIGCONT => {
                    raw::apply_again();
                    (self.tell)(Told::Continued);
                }
                libc::SIGTTIN | libc::SIGTTOU => {}
                _ => {
                    let taken = TAKEN.iter().find(|(taken, _)| *taken == number);
                    taken
                        .into_iter()
                        .for_each(|(_, name)| (self.tell)(Told::End(name)));
                }
            }
        }
    }
}

/// Stops the process as SIGTSTP would, but leaves the shell a terminal that it can use. What has no terminal has nobody
/// to continue it, and goes on.
fn stop() {
    if raw::restore_all() {
        // Always allowed to ourselves.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP).ok();
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use event_manager::{EventManager, SubscriberOps};
    use std::sync::{Arc, Mutex};

    #[test]
    fn a_request_to_end_is_told_by_name_and_a_background_job_is_not_stopped() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let names = Arc::clone(&told);
        let signals = Signals::take(Box::new(move |told| names.lock().unwrap().push(told))).unwrap();
        let mut events = EventManager::new().unwrap();
        events.add_subscriber(signals);
        for number in [libc::SIGTTIN, libc::SIGTTOU, libc::SIGTERM] {
            // To this thread: the other threads of a test program do not block these signals.
            raise(number);
            events.run_with_timeout(1000).unwrap();
        }
        assert_eq!(*told.lock().unwrap(), [Told::End("SIGTERM")]);
    }

    #[expect(unsafe_code, reason = "a signal to one thread has no safe form")]
    fn raise(number: i32) {
        // SAFETY: the calling thread exists for as long as this call.
        assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), number) }, 0);
    }
}
