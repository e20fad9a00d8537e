//! The file system device (5.11): a folder of the host, served to the guest by a process of its own, which works on the
//! rings itself (`served`). What goes over them are FUSE requests, and none is looked at here.

mod spec;
#[cfg(test)]
mod tests;

use virtio_bindings::virtio_ids::VIRTIO_ID_FS;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

use self::spec::{CONFIG_LEN, QUEUE_SIZES, QUEUES, config};
use super::device::{QueueError, Stop, VirtioDevice, read_config_bytes};
use super::served::{RingServer, Served};

/// The device.
pub struct Fs {
    queues: Served<dyn RingServer>,
    config: [u8; CONFIG_LEN],
}

// === impl Fs ===

impl Fs {
    /// How many queues there are: one for urgent requests, one for the others.
    pub const QUEUES: usize = QUEUES;

    /// The file system that the guest mounts by this tag; what is too long of it is cut off.
    pub fn new(server: Box<dyn RingServer>, tag: &str) -> Self {
        Self {
            queues: Served::new(server, QUEUES),
            config: config(tag),
        }
    }
}

impl VirtioDevice for Fs {
    fn id(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config, offset, data);
    }

    fn activate(&mut self, acked: u64) {
        self.queues.activate(acked);
    }

    fn process(&mut self, index: usize, queue: &mut Queue, _: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        self.queues.pass_on(index, queue)
    }

    fn served_elsewhere(&self) -> Option<u64> {
        Some(self.queues.features())
    }

    fn stop_queue(&mut self, index: usize) {
        self.queues.stop(index);
    }

    fn reset(&mut self) {
        self.queues.reset();
    }
}
