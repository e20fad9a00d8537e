//! How others find a running machine and talk to it: its run directory and its control socket.
//!
//! ```text
//!  $RVM_RUN/<uid>/
//!    spec.json      the machine, written by whoever starts rvmm
//!    pid            the process; rvmm holds a lock on it for as long as it lives   (rundir)
//!    control.sock   requests and events, one JSON object a line                    (message, transition, frame, client, session)
//!    console.sock   raw bytes: first the backlog, then live output; input back
//!    console.log    what the guest printed
//!    exit.json      how the machine ended, written last                            (rundir)
//!    launch.sock    where an rvmm that was started without a machine waits for it   (launch)
//! ```
//!
//! The lock decides whether a machine lives: the kernel drops it with the process, however that ends, so neither a
//! stale file nor a reused pid can be taken for a machine. This crate does no async I/O and starts no threads.

pub mod client;
pub mod frame;
pub mod launch;
pub mod message;
pub mod rundir;
pub mod session;
pub mod transition;

pub use client::{Client, ClientError};
pub use message::{
    Accelerator, AskedBy, Device, DiskError, EndReason, Ending, Event, How, Info, Refusal, RefusalCode,
    Reply, Request, State, Stats, Stopped, WatchdogAction,
};
pub use rundir::{ClaimError, Liveness, RunDir, RunLock};
