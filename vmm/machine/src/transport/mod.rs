//! Where virtio devices sit, and so how the guest finds them.

mod mmio;

pub use mmio::MmioSlots;
