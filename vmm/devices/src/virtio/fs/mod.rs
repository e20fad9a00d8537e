//! The file system device (5.11): a folder of the host, served to the guest by a process of its own.
//!
//! ```text
//!   driver ── FUSE requests ──► rings ◄── the server: reads requests, writes answers, in guest RAM itself
//!     │ kick: an eventfd that KVM rings and the server hears       │ call: an eventfd that we hear ─► interrupt
//!     └ DRIVER_OK, reset ─► this device ─► RingServer: where the rings are; give them back
//! ```
//!
//! No request is looked at here: what a guest writes into one is the server's to withstand, and what the server writes
//! into guest RAM the guest's. Here the rings are held against RAM before the server hears of them, and the server never
//! hears of a queue that the driver has not started. A server that is gone leaves a device that needs a reset.

mod spec;
#[cfg(test)]
mod tests;

use std::io;

use virtio_bindings::virtio_ids::VIRTIO_ID_FS;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use self::spec::{CONFIG_LEN, QUEUE_SIZES, QUEUES, config};
use super::device::{QueueError, Stop, VirtioDevice, read_config_bytes};

/// Where a queue lies, in guest-physical addresses. All of it is in RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rings {
    /// Entries.
    pub size: u16,
    /// The descriptors.
    pub descriptors: u64,
    /// The ring of what the driver makes available.
    pub available: u64,
    /// The ring of what was used.
    pub used: u64,
}

/// The process that serves the rings. Where it cannot any more, everything fails at once.
pub trait RingServer: Send {
    /// The features of rings that it knows.
    fn features(&self) -> u64;

    /// Serves this queue from now on, with these of the features. Must not wait for anything.
    ///
    /// # Errors
    /// It cannot any more.
    fn start(&mut self, index: usize, rings: Rings, features: u64) -> io::Result<()>;

    /// The driver has kicked this queue, which was started.
    ///
    /// # Errors
    /// It cannot serve it any more.
    fn kick(&mut self, index: usize) -> io::Result<()>;

    /// Gives this queue, which was started, back: its rings and buffers are not touched any more when this returns. May
    /// wait for that, but not for ever.
    fn stop(&mut self, index: usize);
}

/// The device.
pub struct Fs {
    server: Box<dyn RingServer>,
    config: [u8; CONFIG_LEN],
    acked: u64,
    started: [bool; QUEUES],
}

// === impl Fs ===

impl Fs {
    /// How many queues there are: one for urgent requests, one for the others.
    pub const QUEUES: usize = QUEUES;

    /// The file system that the guest mounts by this tag; what is too long of it is cut off.
    pub fn new(server: Box<dyn RingServer>, tag: &str) -> Self {
        Self {
            server,
            config: config(tag),
            acked: 0,
            started: [false; QUEUES],
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
        self.acked = acked;
    }

    fn process(&mut self, index: usize, queue: &mut Queue, _: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        if let Some(started) = self.started.get_mut(index) {
            if !*started {
                let rings = Rings {
                    size: queue.size(),
                    descriptors: queue.desc_table(),
                    available: queue.avail_ring(),
                    used: queue.used_ring(),
                };
                self.server
                    .start(index, rings, self.acked)
                    .map_err(QueueError::Unserved)?;
                *started = true;
            }
            // Even at the start: the driver may have added buffers, and kicked, before.
            self.server.kick(index).map_err(QueueError::Unserved)?;
        }
        Ok(Stop::Empty)
    }

    fn served_elsewhere(&self) -> Option<u64> {
        Some(self.server.features())
    }

    fn stop_queue(&mut self, index: usize) {
        if let Some(started) = self.started.get_mut(index)
            && std::mem::take(started)
        {
            self.server.stop(index);
        }
    }

    fn reset(&mut self) {
        (0..QUEUES).for_each(|index| self.stop_queue(index));
        self.acked = 0;
    }
}

impl Drop for Fs {
    /// The server must not touch memory that is about to be someone else's.
    fn drop(&mut self) {
        self.reset();
    }
}
