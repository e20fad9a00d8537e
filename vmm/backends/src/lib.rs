//! What the host gives a machine: its console's viewers, its control socket, disks, taps, entropy, signals.
//!
//! These are the far ends of devices. They know descriptors and the event loop, and nothing of a guest's memory or
//! registers; the devices know nothing of them but the traits that they implement.

pub mod agent;
pub mod console;
pub mod control;
pub mod disk;
pub mod entropy;
pub mod lasting;
pub mod net;
pub mod news;
pub mod pages;
pub mod plugged;
pub mod signals;
pub mod socket;
mod transfer;
pub mod vars;
pub mod vhost_net;
pub mod vhost_user;
pub mod vsock;
mod wires;

pub use agent::Agent;
pub use console::{GuestInput, Hub};
pub use lasting::Lasting;
pub use news::{DiskError, News, OnNews};
pub use wires::Wires;
