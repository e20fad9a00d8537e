//! The life of a device between two resets, as every transport has it: status, features, queues.
//!
//! ```text
//!   ACKNOWLEDGE ─► DRIVER ─► FEATURES_OK ─────► DRIVER_OK ──QueueError──► DEVICE_NEEDS_RESET
//!        ▲                   (a subset of the   (queues run)               (nothing runs)
//!        └─ status 0 ◄────── offer, VERSION_1)──────┴──────────────────────────┘
//! ```
//!
//! Who may do what: features change before FEATURES_OK only; a queue is set up while it is not ready, checked when
//! it becomes ready, and runs between DRIVER_OK and the first error. A driver cannot clear a status bit but by a
//! reset.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::Kick;
use crate::blunt::Check;
use crate::virtio::device::{QueueError, Stop, VirtioDevice};

/// Times that a queue is looked at again, because the driver added to it meanwhile, before others have their turn.
const MAX_ROUNDS: usize = 4;

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
const COMMON_FEATURES: u64 = VERSION_1 | EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// How a transport tells the driver that something is due. Called with the core locked.
pub(super) trait Interrupt: Send + Sync {
    /// A buffer of this queue was used.
    fn queue(&self, queue: usize);

    /// The configuration changed, or the device needs a reset.
    fn config(&self);

    /// The device was reset: nothing is due any more.
    fn reset(&self);
}

/// A device with its queues: what a transport's registers steer, and what the event loop lets work. Both lock it.
pub struct Core {
    device: Box<dyn VirtioDevice>,
    memory: GuestMemoryMmap,
    queues: Vec<QueueSlot>,
    status: u32,
    acked: u64,
    /// Counts changes of the config space.
    generation: u32,
    /// The bus does not let the device reach memory.
    held: bool,
    interrupt: Arc<dyn Interrupt>,
    kick: Arc<Kick>,
}

/// A queue and what the driver wrote for it. The latter is checked as a whole when the queue becomes ready.
pub(super) struct QueueSlot {
    queue: Queue,
    pub(super) size: u32,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

// === impl Core ===

impl Core {
    pub(super) fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemoryMmap,
        interrupt: Arc<dyn Interrupt>,
        kick: Arc<Kick>,
    ) -> Self {
        let queues = device
            .queue_sizes()
            .iter()
            .map(|&size| QueueSlot::new(size))
            .collect();
        Self {
            device,
            memory,
            queues,
            status: 0,
            acked: 0,
            generation: 0,
            held: false,
            interrupt,
            kick,
        }
    }

    pub(super) fn device(&self) -> &dyn VirtioDevice {
        &*self.device
    }

    pub(super) fn device_mut(&mut self) -> &mut dyn VirtioDevice {
        &mut *self.device
    }

    pub(super) fn features(&self) -> u64 {
        self.device.features() | COMMON_FEATURES & self.device.served_elsewhere().unwrap_or(u64::MAX)
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// Ignored once the features are agreed upon.
    pub(super) fn set_acked(&mut self, acked: u64) {
        if self.status & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
            self.acked = acked;
        }
    }

    pub(super) fn status(&self) -> u32 {
        self.status
    }

    /// The driver goes on, or starts again.
    pub(super) fn set_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let new = value & !self.status;
        if new & VIRTIO_CONFIG_S_ACKNOWLEDGE != 0 {
            self.status |= VIRTIO_CONFIG_S_ACKNOWLEDGE;
        }
        // U-Boot 2025.01 resets a device it has acknowledged and goes on with DRIVER: nothing here needs the bit.
        if new & VIRTIO_CONFIG_S_DRIVER != 0 {
            self.status |= VIRTIO_CONFIG_S_DRIVER;
        }
        if new & VIRTIO_CONFIG_S_FEATURES_OK != 0
            && self.status & VIRTIO_CONFIG_S_DRIVER != 0
            && (self.acked & !self.features() == 0 || Check::OfferedFeatures.is_out())
            && self.acked & VERSION_1 != 0
        {
            self.status |= VIRTIO_CONFIG_S_FEATURES_OK;
        }
        if new & VIRTIO_CONFIG_S_FAILED != 0 {
            self.status |= VIRTIO_CONFIG_S_FAILED;
        }
        if new & VIRTIO_CONFIG_S_DRIVER_OK != 0 && self.may_set_up() {
            self.status |= VIRTIO_CONFIG_S_DRIVER_OK;
            self.activate();
        }
    }

    /// Some drivers add buffers, and kick, before DRIVER_OK: all ready queues are looked at once.
    fn activate(&mut self) {
        self.device.activate(self.acked);
        self.look_at_all();
    }

    /// Whether the bus holds the device back from memory. Once it does not, all that was kicked meanwhile is done.
    /// Where another process serves the rings, that one goes on.
    pub(super) fn hold(&mut self, held: bool) {
        let was_held = std::mem::replace(&mut self.held, held && !Check::BusMaster.is_out());
        if was_held && self.running() {
            self.look_at_all();
        }
    }

    fn look_at_all(&self) {
        for (index, _) in self
            .queues
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.queue.ready())
        {
            (self.kick)(index);
        }
    }

    /// Back to the state after power-on.
    pub(super) fn reset(&mut self) {
        self.status = 0;
        self.acked = 0;
        for slot in &mut self.queues {
            *slot = QueueSlot::new(slot.queue.max_size());
        }
        self.interrupt.reset();
        self.device.reset();
    }

    /// How many queues the device has.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    pub(super) fn queue(&self, index: u32) -> Option<&QueueSlot> {
        self.queues.get(usize::try_from(index).ok()?)
    }

    /// The queue, if its registers may be written: it exists and is not ready.
    pub(super) fn queue_to_set_up(&mut self, index: u32) -> Option<&mut QueueSlot> {
        let slot = self.queues.get_mut(usize::try_from(index).ok()?)?;
        (!slot.queue.ready()).then_some(slot)
    }

    /// Features are agreed upon and nothing has gone wrong.
    fn may_set_up(&self) -> bool {
        const STOPPED: u32 = VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED;
        self.status & (VIRTIO_CONFIG_S_FEATURES_OK | STOPPED) == VIRTIO_CONFIG_S_FEATURES_OK
    }

    fn running(&self) -> bool {
        self.status & VIRTIO_CONFIG_S_DRIVER_OK != 0 && self.may_set_up() && !self.held
    }

    /// Starts or stops a queue. One that is started again begins with empty rings.
    pub(super) fn set_queue_ready(&mut self, index: u32, ready: bool) {
        let may_start = self.may_set_up();
        let event_idx = self.acked & EVENT_IDX != 0;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(slot) = self.queues.get_mut(index) else {
            return;
        };
        if !ready {
            slot.queue.reset();
            self.device.stop_queue(index);
        } else if may_start && !slot.queue.ready() && slot.start(&self.memory, event_idx).is_err() {
            slot.queue.reset();
            self.give_up();
        }
    }

    /// A driver's kick that no ioeventfd caught.
    pub(super) fn notify(&self, index: u32) {
        if self.running()
            && let Ok(index) = usize::try_from(index)
            && self.queues.get(index).is_some_and(|slot| slot.queue.ready())
        {
            (self.kick)(index);
        }
    }

    /// Works on a queue: to be called when the driver kicked it, or when the back end that feeds it is ready. Does
    /// nothing while the driver has not set the device up, and for a queue that does not exist.
    pub fn run_queue(&mut self, index: usize) {
        if !self.running() || !self.queues.get(index).is_some_and(|slot| slot.queue.ready()) {
            return;
        }
        let done = match self.device.served_elsewhere() {
            Some(_) => self.pass_on(index),
            None => self.work(index),
        };
        match done {
            Ok(Stop::Busy) => (self.kick)(index),
            Ok(Stop::Empty | Stop::BackendIdle) => {}
            Err(_) => self.give_up(),
        }
        if let Some(other) = self.device.follow_up() {
            (self.kick)(other);
        }
    }

    fn work(&mut self, index: usize) -> Result<Stop, QueueError> {
        let (memory, queue) = (&self.memory, &mut self.queues[index].queue);
        for _ in 0..MAX_ROUNDS {
            queue.disable_notification(memory)?;
            let before = queue.next_used();
            let stop = self.device.process(index, queue, memory)?;
            if queue.next_used() != before && wants_interrupt(queue, memory)? {
                self.interrupt.queue(index);
            }
            // While the back end is idle, the driver's kicks are of no use and stay disabled.
            if stop != Stop::Empty || !queue.enable_notification(memory)? {
                return Ok(stop);
            }
        }
        Ok(Stop::Busy)
    }

    /// The notes in the rings are between the driver and whoever serves them: nothing of that is ours to touch.
    fn pass_on(&mut self, index: usize) -> Result<Stop, QueueError> {
        self.device
            .process(index, &mut self.queues[index].queue, &self.memory)
    }

    /// The process that serves this queue has used buffers.
    pub fn announce(&self, index: usize) {
        if self.running() && self.queues.get(index).is_some_and(|slot| slot.queue.ready()) {
            self.interrupt.queue(index);
        }
    }

    /// Something outside has changed the device's config space: a driver that is up is told.
    pub fn config_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.running() {
            self.interrupt.config();
        }
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether the device stands still because the driver broke a rule.
    pub fn needs_reset(&self) -> bool {
        self.status & VIRTIO_CONFIG_S_NEEDS_RESET != 0
    }

    fn give_up(&mut self) {
        self.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        if self.status & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.interrupt.config();
        }
    }
}

/// Whether the driver wants to hear of the buffers just used (2.7.7, 2.7.10).
fn wants_interrupt(queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<bool, QueueError> {
    if !queue.needs_notification(memory)? {
        return Ok(false);
    }
    if queue.event_idx_enabled() {
        return Ok(true);
    }
    // virtio-queue does not look at the flag that is used without event indices.
    let flags: u16 = memory
        .load(GuestAddress(queue.avail_ring()), Ordering::Relaxed)
        .map_err(QueueError::OutsideRam)?;
    Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
}

// === impl QueueSlot ===

impl QueueSlot {
    fn new(max_size: u16) -> Self {
        Self {
            queue: Queue::new(max_size).expect("a device's queue sizes are powers of two up to 32768"),
            size: u32::from(max_size),
            descriptors: 0,
            available: 0,
            used: 0,
        }
    }

    pub(super) fn max_size(&self) -> u16 {
        self.queue.max_size()
    }

    pub(super) fn ready(&self) -> bool {
        self.queue.ready()
    }

    fn start(&mut self, memory: &GuestMemoryMmap, event_idx: bool) -> Result<(), QueueError> {
        let size = u16::try_from(self.size).map_err(|_| virtio_queue::Error::InvalidSize)?;
        self.queue.try_set_size(size)?;
        self.queue
            .try_set_desc_table_address(GuestAddress(self.descriptors))?;
        self.queue
            .try_set_avail_ring_address(GuestAddress(self.available))?;
        self.queue.try_set_used_ring_address(GuestAddress(self.used))?;
        self.queue.set_event_idx(event_idx);
        self.queue.set_ready(true);
        if self.queue.is_valid(memory) {
            Ok(())
        } else {
            Err(QueueError::RingOutsideRam)
        }
    }
}

#[cfg(test)]
mod tests;
