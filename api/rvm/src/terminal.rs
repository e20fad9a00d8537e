//! The terminal in raw mode, and out of it again whatever happens.
//!
//! What the terminal was like is kept in one place for the whole process: the guard restores it when it is dropped,
//! and a panic restores it before it prints, also where a panic aborts and nothing is dropped. Signals that end the
//! process are waited for by the console itself, so that they come this way too.

use std::io;
use std::panic;
use std::sync::{Mutex, Once, PoisonError};

use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
static PANIC: Once = Once::new();

/// The terminal is raw as long as this lives.
#[must_use = "the terminal is restored when this is dropped"]
pub struct Raw(());

/// Whether standard input is a terminal.
pub fn is_terminal() -> bool {
    isatty(stdin())
}

impl Raw {
    /// Makes standard input raw: what is typed reaches the guest as it is, Ctrl-C included.
    pub fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        PANIC.call_once(restore_on_panic);
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}

fn restore_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore();
        report(info);
    }));
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    #[test]
    fn a_panic_restores_the_terminal_even_if_nothing_is_dropped() {
        let pty = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&pty).unwrap();
        unlockpt(&pty).unwrap();
        let name = ptsname(&pty, Vec::new()).unwrap();
        let terminal = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        rustix::stdio::dup2_stdin(&terminal).unwrap();
        let before = tcgetattr(&terminal).unwrap().local_modes;

        std::mem::forget(Raw::enter().unwrap());
        assert!(
            !tcgetattr(&terminal)
                .unwrap()
                .local_modes
                .intersects(LocalModes::ICANON | LocalModes::ECHO)
        );
        let panicked = panic::catch_unwind(|| panic!("as a defect would"));

        assert!(panicked.is_err());
        assert_eq!(tcgetattr(&terminal).unwrap().local_modes, before);
    }
}
