//! How a driver reaches a device: the negotiation that all transports share, and the registers of each.

mod core;
mod interrupt;
mod mmio;
pub mod pci;

pub use self::core::Core;
pub use mmio::{CONFIG, INTERRUPT_ACK, MmioTransport, QUEUE_NOTIFY, WINDOW};

/// Tells whoever runs the device that the queue of this index has work: what a write to `QueueNotify` does that no
/// ioeventfd has caught, and what the transport does to go on later. Called with the transport locked: must only
/// leave a note, such as a write to an eventfd.
pub type Kick = dyn Fn(usize) + Send + Sync;

/// Whether acknowledgements of queue interrupts, writes of 1 to [`INTERRUPT_ACK`], were caught on their way since this
/// was asked last.
pub type CaughtAcks = dyn Fn() -> bool + Send + Sync;
