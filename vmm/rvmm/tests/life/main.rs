//! Whole lives of rvmm, with a script in QEMU's place: what its clients, its terminal and its run directory see.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod awaited;
mod control;
mod stage;
mod terminal;
mod walls;
mod watchdog;
