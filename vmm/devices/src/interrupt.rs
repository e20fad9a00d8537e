//! How a device asks for an interrupt.

/// One wired interrupt source, rising-edge triggered.
///
/// With AIA the line is a KVM one, pulsed 1→0; with the PLIC of this crate it is [`crate::plic::PlicSource`]. An
/// edge that comes before the guest has handled the last one must not be lost: it is latched as pending.
pub trait IrqLine: Send + Sync {
    /// Pulses the line. Called with the device locked, often on a vCPU thread: must neither block nor call back
    /// into the device.
    fn trigger(&self);
}

/// An interrupt that is due for as long as its line is high: what devices with PCI's INTx share, and the
/// external-interrupt input of a hart.
pub trait LevelLine: Send + Sync {
    /// Raises or lowers it. Called on changes, and by the PLIC again where a hart may have lost it, with whoever drives it
    /// locked: must neither block nor call back.
    fn set(&self, high: bool);
}
