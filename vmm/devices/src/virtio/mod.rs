//! Virtio devices of version 1: what they do (one folder each) apart from how the driver reaches them (`transport`).
//!
//! ```text
//!   driver: reset ─► ACKNOWLEDGE ─► DRIVER ─► features ─► FEATURES_OK ─► queues ready ─► DRIVER_OK
//!                                                              │                            │
//!                                   transport::core checks ────┘          VirtioDevice::activate
//!   kick, back end ready ─► run_queue ─► VirtioDevice::process ─► used ring ─► interrupt
//!                                             └─ QueueError ─► DEVICE_NEEDS_RESET, silence until reset
//! ```
//!
//! A device never sees a register of the transport, and the transport never looks into a request. Sections cited as
//! "2.7.5" are those of the virtio 1.3 specification.

pub mod balloon;
pub mod blk;
pub mod buffers;
pub mod chain;
pub mod console;
pub mod device;
pub mod fs;
pub mod medium;
pub mod net;
mod pace;
pub mod rng;
pub mod scsi;
pub mod served;
pub mod transport;
pub mod vsock;

#[cfg(test)]
mod driver;
#[cfg(test)]
mod hostile;

pub use device::{QueueError, Stop, VirtioDevice};
pub use transport::{Core, Kick, MmioTransport};
