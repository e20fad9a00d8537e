//! What a disk does where its back end fails: the driver sees it, or does not, or the request waits.

use std::io;

/// What is done where the back end fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnError {
    /// The driver's request fails.
    #[default]
    Report,
    /// The request waits.
    Stop,
    /// A write that finds no space waits; any other request fails.
    Enospc,
    /// The driver is told that it was done.
    Ignore,
}

/// Who is told that a request waits. Called by whoever runs the device; must not wait, and not run the device.
pub trait Trouble: Send {
    /// The back end failed so.
    fn tell(&self, error: &io::Error);
}

/// What the back end was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Read,
    /// Or a flush, a discard, zeroes.
    Write,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Fail,
    Wait,
}

// === impl OnError ===

impl OnError {
    pub(super) fn verdict(self, doing: Doing, error: &io::Error) -> Verdict {
        match self {
            Self::Report => Verdict::Fail,
            Self::Stop => Verdict::Wait,
            Self::Enospc if doing == Doing::Write && error.kind() == io::ErrorKind::StorageFull => {
                Verdict::Wait
            }
            Self::Enospc => Verdict::Fail,
            Self::Ignore => Verdict::Pass,
        }
    }
}
