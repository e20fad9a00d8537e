//! The pseudo-terminal of a command that asks for one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// What a command takes its terminal to be.
const SIZE: Winsize = Winsize {
    ws_row: 24,
    ws_col: 80,
    ws_xpixel: 0,
    ws_ypixel: 0,
};

/// Both ends of a terminal.
#[derive(Debug)]
pub struct Terminal {
    /// The end of whoever sits at it. Reading it fails once nobody holds the other end.
    pub ours: File,
    /// The command's end.
    pub theirs: File,
}

impl Terminal {
    /// A new terminal of 80 by 24 characters that nobody is controlled by yet.
    pub fn open() -> io::Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        tcsetwinsize(&ours, SIZE)?;
        let name = ptsname(&ours, Vec::new())?;
        let no_control = i32::try_from(OFlags::NOCTTY.bits()).expect("NOCTTY is a small flag");
        let theirs = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(no_control)
            .open(std::ffi::OsStr::from_bytes(name.as_bytes()))?;
        Ok(Self {
            ours: File::from(ours),
            theirs,
        })
    }
}
