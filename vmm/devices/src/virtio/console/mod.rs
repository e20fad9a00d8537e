//! The virtio console (5.3): one port, `hvc0`, without sizes, further ports or emergency write.
//!
//! ```text
//!   InputSource ─► a buffer of the driver's           (asked when a buffer is there, or when told of input)
//!   output ─► in pieces ─► ConsoleOutput
//! ```

mod spec;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

use super::buffers::Buffers;
use super::device::{QueueError, Stop, VirtioDevice, drain, feed, read_config_bytes};
use crate::ConsoleOutput;

/// Most bytes of one chain that are printed or filled; what a chain has beyond that is ignored.
pub const MAX_CHAIN_BYTES: usize = 64 << 10;
/// Bytes that are copied at a time.
const PIECE: usize = 4 << 10;

/// Where the guest's input comes from.
pub trait InputSource: Send {
    /// Puts waiting input into `buffer` and returns its length, zero if there is none.
    ///
    /// Once it has said zero, the device asks again only when told that there is input: after `run_queue(0)`,
    /// [`Console::RECEIVE`].
    fn read(&mut self, buffer: &mut [u8]) -> usize;
}

/// The device.
pub struct Console {
    output: Arc<dyn ConsoleOutput>,
    input: Box<dyn InputSource>,
    /// The input in `..waiting` of it has no buffer yet.
    staging: Box<[u8; PIECE]>,
    waiting: std::ops::Range<usize>,
}

// === impl Console ===

impl Console {
    /// The queue to run when there is input.
    pub const RECEIVE: usize = spec::RECEIVE;
    /// The queue of the guest's output.
    pub const TRANSMIT: usize = spec::TRANSMIT;

    /// A console between these ends.
    pub fn new(output: Arc<dyn ConsoleOutput>, input: Box<dyn InputSource>) -> Self {
        Self {
            output,
            input,
            staging: Box::new([0; PIECE]),
            waiting: 0..0,
        }
    }

    /// Whether there is input in `staging`, after asking for some if there was none.
    fn has_input(&mut self) -> bool {
        if self.waiting.is_empty() {
            self.waiting = 0..self.input.read(&mut *self.staging).min(PIECE);
        }
        !self.waiting.is_empty()
    }

    /// Puts input into a buffer; what does not fit waits for the next one.
    fn fill(&mut self, buffers: &mut Buffers<'_>) -> u32 {
        let (_, mut to) = buffers.parts();
        let written = to.write(&self.staging[self.waiting.clone()]);
        self.waiting.start += written;
        u32::try_from(written).expect("a piece is far below 4 GiB")
    }

    fn transmit(&self, buffers: &mut Buffers<'_>) {
        let (mut from, _) = buffers.parts();
        let mut piece = [0; PIECE];
        for _ in 0..MAX_CHAIN_BYTES / PIECE {
            match from.read(&mut piece) {
                0 => break,
                len => self.output.write(&piece[..len]),
            }
        }
    }
}

impl VirtioDevice for Console {
    fn id(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &spec::QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&spec::CONFIG, offset, data);
    }

    fn process(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Stop, QueueError> {
        if index == spec::RECEIVE {
            return feed(self, queue, memory, Self::has_input, Self::fill);
        }
        drain(queue, memory, |buffers| {
            self.transmit(buffers);
            Ok(0)
        })
    }

    fn reset(&mut self) {
        self.waiting = 0..0;
    }
}
