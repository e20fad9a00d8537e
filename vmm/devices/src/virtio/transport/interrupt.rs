//! The interrupt of virtio-mmio: a status of two bits, and a pulse each time something is due.
//!
//! The bit is set before the pulse, and the pulse comes even when the bit was set already: a driver that
//! acknowledges between the two sees a second, perhaps empty interrupt, and never misses one. The status is atomic
//! and shared, so that the guest's interrupt handler never waits for a device at work.
//!
//! An acknowledgement may be caught on its way (by KVM, into an eventfd), and then costs the guest no exit to us. It
//! takes effect when we next look at the status or raise a bit. That is early enough: a driver that acknowledges before
//! it looks at its rings has seen all that was announced before it came late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};

use super::CaughtAcks;
use super::core::Interrupt;
use crate::IrqLine;

/// Status and line.
pub(super) struct StatusInterrupt {
    status: AtomicU32,
    line: Arc<dyn IrqLine>,
    caught: Box<CaughtAcks>,
}

// === impl StatusInterrupt ===

impl StatusInterrupt {
    pub(super) fn new(line: Arc<dyn IrqLine>, caught: Box<CaughtAcks>) -> Self {
        Self {
            status: AtomicU32::new(0),
            line,
            caught,
        }
    }

    pub(super) fn status(&self) -> u32 {
        self.settle();
        self.status.load(Ordering::SeqCst)
    }

    pub(super) fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    /// Lets an acknowledgement that was caught take effect.
    fn settle(&self) {
        if (self.caught)() {
            self.acknowledge(VIRTIO_MMIO_INT_VRING);
        }
    }

    fn raise(&self, bit: u32) {
        self.settle();
        self.status.fetch_or(bit, Ordering::SeqCst);
        self.line.trigger();
    }
}

impl Interrupt for StatusInterrupt {
    fn queue(&self, _queue: usize) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    fn config(&self) {
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    fn reset(&self) {
        self.settle();
        self.status.store(0, Ordering::SeqCst);
    }
}
