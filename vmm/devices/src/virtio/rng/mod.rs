//! The virtio entropy device (5.4): random bytes for the guest.
//!
//! It has no config space and no features; each chain is filled from the front, up to [`MAX_REQUEST_BYTES`]. A limit lets
//! requests wait, and none is answered with less.

#[cfg(test)]
mod tests;

use std::io;

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::buffers::Buffers;
use super::device::{QueueError, Stop, VirtioDevice, next_chain};
use super::pace::{Alarm, Limits, Pace};

/// Bytes that one request gets at most; Linux asks for 64 or fewer.
pub const MAX_REQUEST_BYTES: usize = 1 << 10;
const QUEUE_SIZES: [u16; 1] = [16];

/// Where the random bytes come from.
pub trait EntropySource: Send {
    /// Fills `buffer` with random bytes, without blocking for long.
    ///
    /// # Errors
    /// When there are none; the request then gets nothing.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()>;
}

/// The device.
pub struct Rng {
    source: Box<dyn EntropySource>,
    pace: Option<Pace>,
}

// === impl Rng ===

impl Rng {
    /// A device fed from here.
    pub fn new(source: Box<dyn EntropySource>) -> Self {
        Self { source, pace: None }
    }

    /// Gives no more bytes a second than this; `alarm` rings when the queue is to be looked at again.
    #[must_use]
    pub fn limited(mut self, bytes: u64, alarm: Box<dyn Alarm>) -> Self {
        let limits = Limits {
            requests: None,
            bytes: Some(bytes),
        };
        self.pace = Some(Pace::new(limits, alarm));
        self
    }

    fn serve(&mut self, buffers: &mut Buffers<'_>) -> u32 {
        let (_, mut to) = buffers.parts();
        let wanted = usize::try_from(to.len()).map_or(MAX_REQUEST_BYTES, |len| len.min(MAX_REQUEST_BYTES));
        let mut bytes = [0; MAX_REQUEST_BYTES];
        let bytes = &mut bytes[..wanted];
        match self.source.fill(bytes) {
            Ok(()) => u32::try_from(to.write(bytes)).expect("MAX_REQUEST_BYTES is far below 4 GiB"),
            Err(_) => 0,
        }
    }
}

impl VirtioDevice for Rng {
    fn id(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn process(&mut self, _: usize, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        let mut buffers = Buffers::default();
        for _ in 0..queue.size() {
            if self.pace.as_mut().is_some_and(Pace::waits) {
                return Ok(Stop::BackendIdle);
            }
            let Some(chain) = next_chain(queue, memory)? else {
                return Ok(Stop::Empty);
            };
            let head = chain.head_index();
            buffers.load(chain, memory, queue.size())?;
            let written = self.serve(&mut buffers);
            if let Some(pace) = &mut self.pace {
                pace.take(written.into());
            }
            queue.add_used(memory, head, written)?;
        }
        Ok(Stop::Busy)
    }
}
