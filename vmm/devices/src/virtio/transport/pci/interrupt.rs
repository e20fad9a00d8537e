//! The interrupts of a virtio function: a vector for each queue and one for the configuration, or INTx with the ISR.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::BusDevice;
use crate::blunt::Check;
use crate::pci::{Intx, Msix};
use crate::virtio::transport::core::Interrupt;

/// No vector: nothing is sent.
pub(super) const NO_VECTOR: u16 = 0xffff;

const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// Which vectors are used, and the ISR.
pub(super) struct PciInterrupt {
    isr: Mutex<u8>,
    intx: Arc<Intx>,
    msix: Option<Arc<Mutex<Msix>>>,
    config: AtomicU16,
    queues: Vec<AtomicU16>,
}

/// The ISR as a structure of the BAR: reading it clears it and lowers the line.
pub(super) struct Isr(pub(super) Arc<PciInterrupt>);

// === impl PciInterrupt ===

impl PciInterrupt {
    pub(super) fn new(queues: usize, intx: Arc<Intx>, msix: Option<Arc<Mutex<Msix>>>) -> Self {
        Self {
            isr: Mutex::new(0),
            intx,
            msix,
            config: AtomicU16::new(NO_VECTOR),
            queues: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
        }
    }

    pub(super) fn config_vector(&self) -> u16 {
        self.config.load(Ordering::SeqCst)
    }

    pub(super) fn set_config_vector(&self, vector: u16) {
        self.config.store(self.existing(vector), Ordering::SeqCst);
    }

    /// The vector of a queue; a queue that does not exist has none.
    pub(super) fn queue_vector(&self, queue: u16) -> u16 {
        let vector = self.queues.get(usize::from(queue));
        vector.map_or(NO_VECTOR, |vector| vector.load(Ordering::SeqCst))
    }

    pub(super) fn set_queue_vector(&self, queue: u16, vector: u16) {
        if let Some(to) = self.queues.get(usize::from(queue)) {
            to.store(self.existing(vector), Ordering::SeqCst);
        }
    }

    /// A driver sees by "no vector" that it asked for one that is not there (4.1.5.1.2).
    fn existing(&self, vector: u16) -> u16 {
        let count = self.msix().map_or(0, |msix| msix.len());
        if usize::from(vector) < count || Check::ExistingMessage.is_out() {
            vector
        } else {
            NO_VECTOR
        }
    }

    fn msix(&self) -> Option<MutexGuard<'_, Msix>> {
        let msix = self.msix.as_ref()?;
        Some(msix.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn raise(&self, vector: u16, bit: u8) {
        if let Some(mut msix) = self.msix().filter(|msix| msix.enabled()) {
            return msix.trigger(vector);
        }
        let mut isr = self.isr();
        *isr |= bit;
        // With the ISR locked, so that a read in between does not lower the line after this.
        self.intx.assert(true);
    }

    fn isr(&self) -> MutexGuard<'_, u8> {
        self.isr.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_isr(&self) -> u8 {
        let mut isr = self.isr();
        self.intx.assert(false);
        std::mem::take(&mut *isr)
    }
}

impl Interrupt for PciInterrupt {
    fn queue(&self, queue: usize) {
        let vector = self
            .queues
            .get(queue)
            .map_or(NO_VECTOR, |vector| vector.load(Ordering::SeqCst));
        self.raise(vector, ISR_QUEUE);
    }

    fn config(&self) {
        self.raise(self.config_vector(), ISR_CONFIG);
    }

    fn reset(&self) {
        self.take_isr();
        for vector in std::iter::once(&self.config).chain(&self.queues) {
            vector.store(NO_VECTOR, Ordering::SeqCst);
        }
    }
}

impl BusDevice for Isr {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (0, Some(first)) = (offset, data.first_mut()) {
            *first = self.0.take_isr();
        }
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) {}
}
