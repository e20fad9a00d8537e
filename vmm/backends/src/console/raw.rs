//! Raw mode of terminals, undone on every way out.
//!
//! While a terminal is raw its former settings stand in one list for the whole process, so that they can be put
//! back by whoever gets there first: the guard's drop, the panic hook (a release build aborts without dropping
//! anything), or [`restore_all`] before an error is printed. Signals that end the process arrive in the event loop
//! (`signals.rs`) and so lead to the guard's drop.
//!
//! A terminal belongs to the shell's job in the foreground. While that is not us (started with `&`, or stopped and put
//! there with `bg`), the terminal is left alone, also on the way out: its settings are someone else's then. We look again
//! ([`apply_again`]) at SIGCONT, and from time to time: `fg` of a job that runs sends no signal.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, Once, PoisonError};
use std::{io, panic};

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr};

/// The terminals that are raw now.
static RAW: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

static HOOK: Once = Once::new();

struct Entry {
    id: u64,
    terminal: OwnedFd,
    /// What it was before we made it raw, while it is.
    before: Option<Termios>,
}

/// A terminal is raw for as long as this lives.
#[derive(Debug)]
pub struct RawMode {
    id: u64,
}

// === impl RawMode ===

impl RawMode {
    /// Makes a terminal raw, now or once it is ours; `None` where this is not a terminal.
    ///
    /// # Errors
    /// The terminal's.
    pub fn enter(terminal: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        if !isatty(terminal) {
            return Ok(None);
        }
        let mut entry = Entry {
            id: 0,
            terminal: terminal.try_clone_to_owned()?,
            before: None,
        };
        HOOK.call_once(restore_on_panic);
        let mut entries = RAW.lock().unwrap_or_else(PoisonError::into_inner);
        entry.apply()?;
        entry.id = entries.last().map_or(0, |last| last.id + 1);
        let id = entry.id;
        entries.push(entry);
        Ok(Some(Self { id }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let mut entries = RAW.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain_mut(|entry| {
            if entry.id == self.id {
                entry.restore();
            }
            entry.id != self.id
        });
    }
}

// === impl Entry ===

impl Entry {
    /// Makes the terminal raw if it is ours. Settings from before we made it so are kept until they are put back.
    fn apply(&mut self) -> io::Result<()> {
        if !is_ours(self.terminal.as_fd()) {
            return Ok(());
        }
        let now = tcgetattr(&self.terminal)?;
        let mut raw = now.clone();
        raw.make_raw();
        tcsetattr(&self.terminal, OptionalActions::Now, &raw)?;
        self.before.get_or_insert(now);
        Ok(())
    }

    fn restore(&mut self) {
        if let Some(before) = self.before.take()
            && is_ours(self.terminal.as_fd())
        {
            // A terminal that is gone has nothing to be put back.
            tcsetattr(&self.terminal, OptionalActions::Now, &before).ok();
        }
    }
}

/// Whether we may read a terminal and change it: its foreground is our process group, or it controls nobody's jobs.
pub(super) fn is_ours(terminal: BorrowedFd<'_>) -> bool {
    // Not the terminal of our session: refused, and then nobody stops us for using it.
    tcgetpgrp(terminal).map_or(true, |foreground| foreground == getpgrp())
}

/// Puts back all terminals: for a last word before the process ends, or before it is stopped. True if there are any.
pub fn restore_all() -> bool {
    // On a panic the lock may be held by the one who panics; then its guard's drop or nobody can help.
    let Ok(mut entries) = RAW.try_lock() else {
        return false;
    };
    entries.iter_mut().for_each(Entry::restore);
    !entries.is_empty()
}

/// Makes the terminals raw again after the process was stopped or brought to the foreground.
pub fn apply_again() {
    let mut entries = RAW.lock().unwrap_or_else(PoisonError::into_inner);
    // A terminal that is gone cannot be set.
    entries.iter_mut().for_each(|entry| drop(entry.apply()));
}

fn restore_on_panic() {
    let former = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let _ = restore_all();
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
