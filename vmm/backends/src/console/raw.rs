//! Raw mode of terminals, undone on every way out.
//!
//! While a terminal is raw its former settings stand in one list for the whole process, so that they can be put
//! back by whoever gets there first: the guard's drop, the panic hook (a release build aborts without dropping
//! anything), or [`restore_all`] before an error is printed. Signals that end the process arrive in the event loop
//! (`signals.rs`) and so lead to the guard's drop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, Once, PoisonError};
use std::{io, panic};

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// The terminals that are raw now.
static RAW: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

static HOOK: Once = Once::new();

struct Entry {
    id: u64,
    terminal: OwnedFd,
    before: Termios,
    raw: Termios,
}

/// A terminal is raw for as long as this lives.
#[derive(Debug)]
pub struct RawMode {
    id: u64,
}

// === impl RawMode ===

impl RawMode {
    /// Makes a terminal raw; `None` where this is not a terminal.
    ///
    /// # Errors
    /// The terminal's.
    pub fn enter(terminal: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        if !isatty(terminal) {
            return Ok(None);
        }
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        let copy = terminal.try_clone_to_owned()?;
        HOOK.call_once(restore_on_panic);
        let mut entries = RAW.lock().unwrap_or_else(PoisonError::into_inner);
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        let id = entries.last().map_or(0, |last| last.id + 1);
        entries.push(Entry {
            id,
            terminal: copy,
            before,
            raw,
        });
        Ok(Some(Self { id }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let mut entries = RAW.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| {
            if entry.id == self.id {
                entry.restore();
            }
            entry.id != self.id
        });
    }
}

// === impl Entry ===

impl Entry {
    fn restore(&self) {
        // A terminal that is gone has nothing to be put back.
        tcsetattr(self.terminal.as_fd(), OptionalActions::Now, &self.before).ok();
    }
}

/// Puts back all terminals, for a last word before the process ends.
pub fn restore_all() {
    // On a panic the lock may be held by the one who panics; then its guard's drop or nobody can help.
    if let Ok(entries) = RAW.try_lock() {
        entries.iter().for_each(Entry::restore);
    }
}

/// Makes the terminals raw again, after a stop (SIGSTOP) and continue during which a shell changed them.
pub(crate) fn apply_again() {
    let entries = RAW.lock().unwrap_or_else(PoisonError::into_inner);
    for entry in entries.iter() {
        tcsetattr(entry.terminal.as_fd(), OptionalActions::Now, &entry.raw).ok();
    }
}

fn restore_on_panic() {
    let former = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore_all();
        former(info);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::testing::pty;
    use rustix::termios::LocalModes;

    fn is_raw(terminal: &OwnedFd) -> bool {
        !tcgetattr(terminal)
            .unwrap()
            .local_modes
            .contains(LocalModes::ICANON)
    }

    #[test]
    fn raw_mode_ends_with_its_guard() {
        let (_master, terminal) = pty();
        let guard = RawMode::enter(terminal.as_fd()).unwrap();
        assert!(guard.is_some() && is_raw(&terminal));
        drop(guard);
        assert!(!is_raw(&terminal));
    }

    #[test]
    fn a_panic_restores_the_terminal_though_nothing_is_dropped() {
        let (_master, terminal) = pty();
        std::mem::forget(RawMode::enter(terminal.as_fd()).unwrap());
        assert!(is_raw(&terminal));
        panic::catch_unwind(|| panic!("expected in this test")).unwrap_err();
        assert!(!is_raw(&terminal));
    }

    #[test]
    fn what_is_no_terminal_stays_as_it_is() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(RawMode::enter(reader.as_fd()).unwrap().is_none());
    }
}
