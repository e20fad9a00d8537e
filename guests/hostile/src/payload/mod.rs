//! The guest itself: one program on a bare machine, without interrupts, without paging.
//!
//! ```text
//!   _start (main.rs) ─► life::run ─► for each case: act ─► canaries ─► another device ─► the same device ─► one line
//! ```

pub mod bare;
mod board;
mod bus;
mod devices;
mod harts;
pub mod life;
mod pages;
mod pci;
mod requests;
mod rings;
mod say;
mod sbi;
mod sockets;
mod transport;
mod trap;
mod tree;
mod virtio;

pub use board::*;
pub use bus::*;
pub use devices::*;
pub use harts::*;
pub use pages::*;
pub use pci::*;
pub use requests::*;
pub use rings::*;
pub use sbi::*;
pub use sockets::*;
pub use transport::*;
pub use virtio::*;

/// What came of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was carried out.
    Answered,
    /// It was ignored, answered with an error, or a fault.
    Refused,
    /// The device stands still.
    NeedsReset,
    /// This machine has no such device.
    Absent,
    /// Something that must not be.
    Broken(&'static str),
}

// === impl Verdict ===

impl Verdict {
    /// Answered if so, else refused.
    pub fn answered_if(answered: bool) -> Self {
        if answered { Self::Answered } else { Self::Refused }
    }

    /// This verdict, unless something is wrong.
    pub fn unless(self, wrong: bool, what: &'static str) -> Self {
        if wrong { Self::Broken(what) } else { self }
    }

    /// How it is called.
    pub fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::NeedsReset => "needs-reset",
            Self::Absent => "absent",
            Self::Broken(_) => "broken",
        }
    }
}
