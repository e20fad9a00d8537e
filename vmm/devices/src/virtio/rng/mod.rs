//! The virtio entropy device (5.4): random bytes for the guest.
//!
//! It has no config space and no features; each chain is filled from the front, up to [`MAX_REQUEST_BYTES`].

#[cfg(test)]
mod tests;

use std::io;

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

use super::buffers::Buffers;
use super::device::{QueueError, Stop, VirtioDevice, drain};

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
}

// === impl Rng ===

impl Rng {
    /// A device fed from here.
    pub fn new(source: Box<dyn EntropySource>) -> Self {
        Self { source }
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
        drain(queue, memory, |buffers| Ok(self.serve(buffers)))
    }
}
