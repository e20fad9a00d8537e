//! The console of a machine: one stream out of the guest, many viewers, one stream into it.
//!
//! | file | holds |
//! | --- | --- |
//! | `hub.rs` | the middle: any thread writes, the guest's input end is swapped at a reset |
//! | `backlog.rs`, `cursor.rs` | the last output and places in it: what makes viewers free of charge |
//! | `log.rs` | `console.log`, bounded |
//! | `server.rs`, `viewer.rs` | the event loop's side: sockets and the terminal |
//! | `terminal.rs`, `raw.rs` | this process's own terminal, put back on every way out |
//!
//! Promises: a viewer gets the replay first, then what follows, without gaps that are not announced; a viewer that is
//! slow or gone holds up neither the guest nor other viewers; no input is lost while its viewer lives.

pub mod backlog;
pub mod cursor;
pub mod hub;
mod log;
pub mod raw;
pub mod server;
pub mod terminal;
mod viewer;

#[cfg(test)]
mod testing;

pub use backlog::BACKLOG;
pub use hub::{GuestInput, Hub, MAX_INPUT};
pub use log::MAX_LOG;
pub use server::{MAX_VIEWERS, Server};
pub use terminal::{LEAVE, Terminal};
