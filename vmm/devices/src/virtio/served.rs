//! Queues that somebody else works on: another process (vhost-user), or the host's kernel (vhost).
//!
//! ```text
//!   driver ── buffers ──► rings ◄── the server: takes them and puts them back, in guest RAM itself
//!     │ kick: an eventfd that KVM rings and the server hears       │ call: an eventfd that we hear ─► interrupt
//!     └ DRIVER_OK, reset ─► the device ─► RingServer: where the rings are; give them back
//! ```
//!
//! No request is looked at here: what a guest writes into one is the server's to withstand, and what the server writes
//! into guest RAM the guest's. Here the rings are held against RAM before the server hears of them, and the server never
//! hears of a queue that the driver has not started. A server that is gone leaves a device that needs a reset.

use std::io;

use virtio_queue::{Queue, QueueT};

use super::device::{QueueError, Stop};

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

/// Who serves the rings. Where it cannot any more, everything fails at once.
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

/// The queues of one device, and who serves them.
pub struct Served<S: RingServer + ?Sized> {
    server: Box<S>,
    acked: u64,
    started: Vec<bool>,
}

// === impl Served ===

impl<S: RingServer + ?Sized> Served<S> {
    /// So many queues, none of them started.
    pub fn new(server: Box<S>, queues: usize) -> Self {
        Self {
            server,
            acked: 0,
            started: vec![false; queues],
        }
    }

    /// Who serves them.
    pub fn server(&mut self) -> &mut S {
        &mut self.server
    }

    /// The features of rings that it knows.
    pub fn features(&self) -> u64 {
        self.server.features()
    }

    /// The driver is ready, with these features.
    pub fn activate(&mut self, acked: u64) {
        self.acked = acked;
    }

    /// The driver has kicked a queue: its server hears of it, and before that of the queue.
    ///
    /// # Errors
    /// Nobody serves it.
    pub fn pass_on(&mut self, index: usize, queue: &Queue) -> Result<Stop, QueueError> {
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

    /// The driver takes a queue back.
    pub fn stop(&mut self, index: usize) {
        if let Some(started) = self.started.get_mut(index)
            && std::mem::take(started)
        {
            self.server.stop(index);
        }
    }

    /// The driver takes all of them back.
    pub fn reset(&mut self) {
        (0..self.started.len()).for_each(|index| self.stop(index));
        self.acked = 0;
    }
}

impl<S: RingServer + ?Sized> Drop for Served<S> {
    /// The server must not touch memory that is about to be someone else's.
    fn drop(&mut self) {
        self.reset();
    }
}
