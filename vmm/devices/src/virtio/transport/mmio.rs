//! The register map of virtio-mmio, version 2 (4.2.2).
//!
//! Registers are 32 bits wide and take no other access; config space behind them takes any width. The driver's kick
//! is a write of the queue's index to [`QUEUE_NOTIFY`]: normally KVM turns it into an eventfd's event and it never
//! comes here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_DEVICE_FEATURES,
    VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_DRIVER_FEATURES,
    VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS,
    VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
    VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_QUEUE_NUM,
    VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_USED_HIGH,
    VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_SHM_BASE_HIGH, VIRTIO_MMIO_SHM_LEN_LOW, VIRTIO_MMIO_STATUS,
    VIRTIO_MMIO_VENDOR_ID, VIRTIO_MMIO_VERSION,
};
use vm_memory::GuestMemoryMmap;

use super::core::Core;
use super::interrupt::StatusInterrupt;
use super::{CaughtAcks, Kick};
use crate::virtio::VirtioDevice;
use crate::{BusDevice, IrqLine};

/// Length of the register window.
pub const WINDOW: u64 = 0x1000;
/// Where the driver writes the index of a queue that has work: the place for an ioeventfd with that datamatch.
pub const QUEUE_NOTIFY: u64 = VIRTIO_MMIO_QUEUE_NOTIFY as u64;
/// Where the driver acknowledges an interrupt: a place for an ioeventfd with datamatch 1, see [`super::CaughtAcks`].
pub const INTERRUPT_ACK: u64 = VIRTIO_MMIO_INTERRUPT_ACK as u64;
/// Where config space begins.
pub const CONFIG: u64 = VIRTIO_MMIO_CONFIG as u64;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"rvmm");
/// No device here has shared memory; a region that does not exist has this length and base.
const NO_SHARED_MEMORY: u32 = u32::MAX;

/// The registers of a virtio device, for a place on the bus. The interrupt registers answer without waiting for a
/// device that is at work on another thread.
pub struct MmioTransport {
    core: Arc<Mutex<Core>>,
    interrupt: Arc<StatusInterrupt>,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
}

// === impl MmioTransport ===

impl MmioTransport {
    /// A device that has just been reset. `kick` is described at [`Kick`].
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemoryMmap,
        irq: Arc<dyn IrqLine>,
        kick: Arc<Kick>,
    ) -> Self {
        Self::with_caught_acks(device, memory, irq, kick, Box::new(|| false))
    }

    /// [`Self::new`] where acknowledgements may be caught.
    pub fn with_caught_acks(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemoryMmap,
        irq: Arc<dyn IrqLine>,
        kick: Arc<Kick>,
        caught: Box<CaughtAcks>,
    ) -> Self {
        let interrupt = Arc::new(StatusInterrupt::new(irq, caught));
        let core = Core::new(device, memory, Arc::<StatusInterrupt>::clone(&interrupt), kick);
        Self {
            core: Arc::new(Mutex::new(core)),
            interrupt,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
        }
    }

    /// The device behind the registers.
    pub fn core(&self) -> &Arc<Mutex<Core>> {
        &self.core
    }

    fn locked(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_register(&self, offset: u32) -> u32 {
        if offset == VIRTIO_MMIO_INTERRUPT_STATUS {
            return self.interrupt.status();
        }
        let core = self.locked();
        let queue = core.queue(self.queue_sel);
        match offset {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => core.device().id(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => half(core.features(), self.device_features_sel),
            VIRTIO_MMIO_QUEUE_NUM_MAX => queue.map_or(0, |queue| u32::from(queue.max_size())),
            VIRTIO_MMIO_QUEUE_READY => queue.map_or(0, |queue| u32::from(queue.ready())),
            VIRTIO_MMIO_STATUS => core.status(),
            VIRTIO_MMIO_SHM_LEN_LOW..=VIRTIO_MMIO_SHM_BASE_HIGH => NO_SHARED_MEMORY,
            VIRTIO_MMIO_CONFIG_GENERATION => core.generation(),
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u32, value: u32) {
        match offset {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES => {
                let mut core = self.locked();
                let acked = with_half(core.acked(), self.driver_features_sel, value);
                core.set_acked(acked);
            }
            VIRTIO_MMIO_QUEUE_SEL => self.queue_sel = value,
            VIRTIO_MMIO_QUEUE_READY => self.locked().set_queue_ready(self.queue_sel, value & 1 != 0),
            VIRTIO_MMIO_QUEUE_NOTIFY => self.locked().notify(value),
            VIRTIO_MMIO_INTERRUPT_ACK => self.interrupt.acknowledge(value),
            VIRTIO_MMIO_STATUS => self.locked().set_status(value),
            _ => self.write_queue_register(offset, value),
        }
    }

    fn write_queue_register(&self, offset: u32, value: u32) {
        let mut core = self.locked();
        let Some(queue) = core.queue_to_set_up(self.queue_sel) else {
            return;
        };
        match offset {
            VIRTIO_MMIO_QUEUE_NUM => queue.size = value,
            VIRTIO_MMIO_QUEUE_DESC_LOW => queue.descriptors = with_half(queue.descriptors, 0, value),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.descriptors = with_half(queue.descriptors, 1, value),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.available = with_half(queue.available, 0, value),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.available = with_half(queue.available, 1, value),
            VIRTIO_MMIO_QUEUE_USED_LOW => queue.used = with_half(queue.used, 0, value),
            VIRTIO_MMIO_QUEUE_USED_HIGH => queue.used = with_half(queue.used, 1, value),
            _ => {}
        }
    }
}

impl BusDevice for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.locked().device().read_config(offset, data);
        }
        match register(offset, data.len()) {
            Some(offset) => data.copy_from_slice(&self.read_register(offset).to_le_bytes()),
            None => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            return self.locked().device_mut().write_config(offset, data);
        }
        if let (Some(offset), Ok(&value)) = (register(offset, data.len()), data.try_into()) {
            self.write_register(offset, u32::from_le_bytes(value));
        }
    }
}

/// The register at `offset`, if the access is one that registers take.
fn register(offset: u64, width: usize) -> Option<u32> {
    let offset = u32::try_from(offset).ok()?;
    (width == 4 && offset < VIRTIO_MMIO_CONFIG && offset.is_multiple_of(4)).then_some(offset)
}

/// The lower (0) or upper (1) half; there are no others.
fn half(value: u64, which: u32) -> u32 {
    match which {
        0 => (value & 0xffff_ffff) as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn with_half(value: u64, which: u32, half: u32) -> u64 {
    match which {
        0 => value & !0xffff_ffff | u64::from(half),
        1 => value & 0xffff_ffff | u64::from(half) << 32,
        _ => value,
    }
}

#[cfg(test)]
mod tests;
