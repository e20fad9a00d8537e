//! The common configuration structure (4.1.4.3): negotiation and queues.
//!
//! A field takes accesses of its own width; those of 64 bits also take one half at a time. Everything else reads as
//! all-ones and writes nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::interrupt::PciInterrupt;
use crate::BusDevice;
use crate::virtio::transport::core::{Core, QueueSlot};

/// The structure with its selectors.
pub(super) struct Negotiation {
    core: Arc<Mutex<Core>>,
    interrupt: Arc<PciInterrupt>,
    device_feature_select: u32,
    driver_feature_select: u32,
    queue_select: u16,
}

/// The fields, by their offsets.
mod field {
    pub const DEVICE_FEATURE_SELECT: u64 = 0;
    pub const DEVICE_FEATURE: u64 = 4;
    pub const DRIVER_FEATURE_SELECT: u64 = 8;
    pub const DRIVER_FEATURE: u64 = 12;
    pub const CONFIG_VECTOR: u64 = 16;
    pub const NUM_QUEUES: u64 = 18;
    pub const STATUS: u64 = 20;
    pub const GENERATION: u64 = 21;
    pub const QUEUE_SELECT: u64 = 22;
    pub const QUEUE_SIZE: u64 = 24;
    pub const QUEUE_VECTOR: u64 = 26;
    pub const QUEUE_ENABLE: u64 = 28;
    pub const QUEUE_NOTIFY_OFFSET: u64 = 30;
    pub const QUEUE_DESCRIPTORS: u64 = 32;
    pub const QUEUE_DRIVER: u64 = 40;
    pub const QUEUE_DEVICE: u64 = 48;
    /// Notification data, queue reset, administration queues: fields of features that are not offered.
    pub const QUEUE_NOTIFY_DATA: u64 = 56;
    pub const END: u64 = 64;
}

// === impl Negotiation ===

impl Negotiation {
    pub(super) fn new(core: Arc<Mutex<Core>>, interrupt: Arc<PciInterrupt>) -> Self {
        Self {
            core,
            interrupt,
            device_feature_select: 0,
            driver_feature_select: 0,
            queue_select: 0,
        }
    }

    fn locked(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_field(&self, field: u64) -> u64 {
        let core = self.locked();
        let features = |value: u64, select: u32| value.checked_shr(select.saturating_mul(32)).unwrap_or(0);
        match field {
            field::DEVICE_FEATURE_SELECT => self.device_feature_select.into(),
            field::DEVICE_FEATURE => features(core.features(), self.device_feature_select),
            field::DRIVER_FEATURE_SELECT => self.driver_feature_select.into(),
            field::DRIVER_FEATURE => features(core.acked(), self.driver_feature_select),
            field::CONFIG_VECTOR => self.interrupt.config_vector().into(),
            field::NUM_QUEUES => core.queue_count() as u64,
            field::STATUS => core.status().into(),
            // Eight bits of it.
            field::GENERATION => core.generation().into(),
            field::QUEUE_SELECT => self.queue_select.into(),
            field::QUEUE_VECTOR => self.interrupt.queue_vector(self.queue_select).into(),
            _ => core
                .queue(self.queue_select.into())
                .map_or(0, |queue| self.read_queue(queue, field)),
        }
    }

    fn read_queue(&self, queue: &QueueSlot, field: u64) -> u64 {
        match field {
            field::QUEUE_SIZE => queue.size.into(),
            field::QUEUE_ENABLE => queue.ready().into(),
            field::QUEUE_NOTIFY_OFFSET => self.queue_select.into(),
            field::QUEUE_DESCRIPTORS => queue.descriptors,
            field::QUEUE_DRIVER => queue.available,
            field::QUEUE_DEVICE => queue.used,
            _ => 0,
        }
    }

    /// Writes those bits of a field that `mask` has.
    fn write_field(&mut self, field: u64, value: u64, mask: u64) {
        let word = (value & 0xffff_ffff) as u32;
        let half = (value & 0xffff) as u16;
        match field {
            field::DEVICE_FEATURE_SELECT => self.device_feature_select = word,
            field::DRIVER_FEATURE_SELECT => self.driver_feature_select = word,
            field::DRIVER_FEATURE => self.accept(word),
            field::CONFIG_VECTOR => self.interrupt.set_config_vector(half),
            field::STATUS => self.locked().set_status(word),
            field::QUEUE_SELECT => self.queue_select = half,
            field::QUEUE_VECTOR => self.interrupt.set_queue_vector(self.queue_select, half),
            // A queue is stopped by a reset of the device only.
            field::QUEUE_ENABLE if half == 1 => self.locked().set_queue_ready(self.queue_select.into(), true),
            _ => self.write_queue(field, value, mask),
        }
    }

    fn write_queue(&self, field: u64, value: u64, mask: u64) {
        let mut core = self.locked();
        let Some(queue) = core.queue_to_set_up(self.queue_select.into()) else {
            return;
        };
        let masked = |old: u64| old & !mask | value & mask;
        match field {
            field::QUEUE_SIZE => queue.size = (value & 0xffff) as u32,
            field::QUEUE_DESCRIPTORS => queue.descriptors = masked(queue.descriptors),
            field::QUEUE_DRIVER => queue.available = masked(queue.available),
            field::QUEUE_DEVICE => queue.used = masked(queue.used),
            _ => {}
        }
    }

    fn accept(&self, word: u32) {
        let shift = match self.driver_feature_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        let mut core = self.locked();
        let kept = core.acked() & !(0xffff_ffff << shift);
        core.set_acked(kept | u64::from(word) << shift);
    }
}

impl BusDevice for Negotiation {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((field, shift)) = field_at(offset, data.len()) {
            let value = self.read_field(field) >> shift;
            data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some((field, shift)) = field_at(offset, data.len()) {
            let mut bytes = [0; 8];
            bytes[..data.len()].copy_from_slice(data);
            let mask = u64::MAX >> (64 - 8 * data.len());
            self.write_field(field, u64::from_le_bytes(bytes) << shift, mask << shift);
        }
    }
}

/// The field that an access hits, and how many bits into it.
fn field_at(offset: u64, width: usize) -> Option<(u64, u32)> {
    let own_width = match offset {
        field::DEVICE_FEATURE_SELECT..field::CONFIG_VECTOR => 4,
        field::CONFIG_VECTOR..field::STATUS => 2,
        field::STATUS..field::QUEUE_SELECT => 1,
        field::QUEUE_SELECT..field::QUEUE_DESCRIPTORS => 2,
        field::QUEUE_DESCRIPTORS..field::QUEUE_NOTIFY_DATA => 8,
        field::QUEUE_NOTIFY_DATA..field::END => 2,
        _ => return None,
    };
    let half = own_width == 8 && width == 4;
    let fits = (width == own_width || half) && offset.is_multiple_of(width as u64);
    let into = offset % own_width as u64;
    fits.then(|| (offset - into, if into == 0 { 0 } else { 32 }))
}
