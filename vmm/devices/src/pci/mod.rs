//! PCI as far as a machine of ours has it: one bus behind one host bridge, with functions that come and go.
//!
//! ```text
//!   vCPU ─► Bus ─┬─ ECAM ─────────► Host ─► Function: config space, capabilities, BARs      (config, function)
//!                │                    │ a BAR or the command register was written
//!                │                    ▼
//!                │                  place all BARs anew: which are decoded, and where       (host)
//!                │                    │ insert, remove                 └─► Placed: doorbells follow
//!                └─ windows ─► memory bus ─► Region ─► BusDevice: registers of the device, MSI-X table
//!
//!   device ─► Msix ── unmasked ─► MessageLine: a message to the guest's MSI controller      (msix)
//!         └─► Intx ── allowed ──► Wire ─► LevelLine: a line that up to eight slots share    (intx)
//! ```
//!
//! Firmware and kernel both enumerate, and the second moves what the first has placed: so where a BAR is, is worked
//! out from all registers each time one of them changes. A BAR is decoded where it lies in a window of the bridge as
//! a whole, with memory decoding switched on, and over no other; anywhere else, RAM among it, it does nothing.

pub mod config;
pub mod function;
pub mod host;
pub mod intx;
pub mod msix;

pub use config::{ConfigSpace, Identity};
pub use function::{Function, Placed, Region};
pub use host::{Host, PlugError, SLOTS};
pub use intx::{Intx, Wire};
pub use msix::{Message, MessageLine, Msix};

#[cfg(test)]
mod tests;
