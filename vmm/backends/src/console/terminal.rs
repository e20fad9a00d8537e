//! This process's own standard input and output as a viewer of the console.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};

use super::raw::RawMode;

/// The byte that leaves the console when typed at a terminal: Ctrl-].
pub const LEAVE: u8 = 0x1d;

/// Standard input and output, or what stands for them: two ways to them that do not block.
#[derive(Debug)]
pub struct Terminal {
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
    pub(super) changed: Changed,
}

/// What was changed of streams that others, such as the shell, share with us. Put back on drop.
#[derive(Debug)]
pub(super) struct Changed {
    raw: Option<RawMode>,
    flags: Vec<(OwnedFd, OFlags)>,
}

// === impl Terminal ===

impl Terminal {
    /// Takes over this process's standard input and output. If the input is a terminal, it becomes raw.
    ///
    /// # Errors
    /// The kernel's, when the streams are closed or the terminal cannot be set.
    pub fn open() -> io::Result<Self> {
        Self::over(rustix::stdio::stdin(), rustix::stdio::stdout())
    }

    /// The same over any two streams.
    pub(super) fn over(input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> io::Result<Self> {
        let mut changed = Changed {
            raw: None,
            flags: Vec::new(),
        };
        let own_input = changed.non_blocking(input, OFlags::RDONLY)?;
        let own_output = changed.non_blocking(output, OFlags::WRONLY)?;
        changed.raw = RawMode::enter(input)?;
        Ok(Self {
            input: own_input,
            output: own_output,
            changed,
        })
    }

    /// Whether someone types here: only then does [`LEAVE`] have its meaning.
    pub fn is_interactive(&self) -> bool {
        self.changed.raw.is_some()
    }
}

// === impl Changed ===

impl Changed {
    /// A non-blocking way to `stream`. O_NONBLOCK belongs to the open file, which a terminal's shell and a pipe's
    /// other writers share; so the stream is opened anew where that is possible, and changed where it is not.
    fn non_blocking(&mut self, stream: BorrowedFd<'_>, access: OFlags) -> io::Result<OwnedFd> {
        let flags = rustix::fs::fcntl_getfl(stream)?;
        // A regular file never blocks, and opened anew it would be read or written from its beginning.
        let is_file = FileType::from_raw_mode(rustix::fs::fstat(stream)?.st_mode).is_file();
        if is_file || flags.contains(OFlags::NONBLOCK) {
            return stream.try_clone_to_owned();
        }
        let again = format!("/proc/self/fd/{}", stream.as_raw_fd());
        let mode = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if let Ok(fd) = rustix::fs::open(again, mode, Mode::empty()) {
            return Ok(fd);
        }
        let fd = stream.try_clone_to_owned()?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        self.flags.push((fd.try_clone()?, flags));
        Ok(fd)
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        for (fd, flags) in &self.flags {
            // A stream that is gone has nothing to be put back.
            rustix::fs::fcntl_setfl(fd.as_fd(), *flags).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::testing::pty;

    fn blocks(fd: BorrowedFd<'_>) -> bool {
        !rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
    }

    #[test]
    fn the_shells_side_of_a_terminal_keeps_blocking() {
        let (_master, shell) = pty();
        let terminal = Terminal::over(shell.as_fd(), shell.as_fd()).unwrap();
        assert!(terminal.is_interactive());
        assert!(!blocks(terminal.output.as_fd()) && blocks(shell.as_fd()));
    }

    #[test]
    fn a_socket_is_put_back_to_blocking_when_both_directions_are_done() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let terminal = Terminal::over(ours.as_fd(), ours.as_fd()).unwrap();
        let Terminal {
            input,
            output,
            changed,
        } = terminal;
        drop(input);
        assert!(!blocks(output.as_fd()));
        drop(changed);
        assert!(blocks(ours.as_fd()));
    }
}
