//! The interrupt of virtio-mmio: a status of two bits, and a pulse each time something is due.
//!
//! The bit is set before the pulse, and the pulse comes even when the bit was set already: a driver that
//! acknowledges between the two sees a second, perhaps empty interrupt, and never misses one. The status is atomic
//! and shared, so that the guest's interrupt handler never waits for a device at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};

use super::core::Interrupt;
use crate::IrqLine;

/// Status and line.
pub(super) struct StatusInterrupt {
    status: AtomicU32,
    line: Arc<dyn IrqLine>,
}

// === impl StatusInterrupt ===

impl StatusInterrupt {
    pub(super) fn new(line: Arc<dyn IrqLine>) -> Self {
        Self {
            status: AtomicU32::new(0),
            line,
        }
    }

    pub(super) fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    pub(super) fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    fn raise(&self, bit: u32) {
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
        self.status.store(0, Ordering::SeqCst);
    }
}
