//! A guest that means harm: what it does to each device, and what must come of it.
//!
//! ```text
//!   cases/*.rs   the table: one line a case, with what each backend has to answer
//!        │ on the build machine                        │ feature `payload`, on a bare riscv64
//!        ▼                                             ▼
//!   the list, and what the harness expects        payload/: run each case, print `case ID verdict`
//! ```
//!
//! A case is one way to misbehave. After each one the guest looks for writes outside its buffers, sends a
//! well-behaved request to another device, and brings the misused device up again. To add a case, add a line to a
//! table: its id, the device, what is done, what is expected under KVM and under TCG, and the doing.

#![no_std]

#[cfg(test)]
extern crate std;

#[macro_use]
mod table;
pub mod cases;
#[cfg(feature = "payload")]
pub mod payload;

pub use table::{Backend, Case, Device, Expected};
