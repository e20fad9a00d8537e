//! The virtio network device (5.1): one Ethernet interface, without offloads.
//!
//! ```text
//!   receive:  NetBackend::receive ─► staging (one frame) ─► header + frame ─► a buffer of the driver's
//!                                        └─ stays while the driver has given no buffer
//!   transmit: header (checked, dropped) │ frame ─► NetBackend::send, straight from guest memory
//! ```
//!
//! A frame that cannot be delivered (too short, too long, with an offload nobody offered, larger than the driver's
//! buffer, refused by the backend) is dropped, as on any network.

mod spec;
#[cfg(test)]
mod tests;

use std::io;

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_queue::Queue;
use vm_memory::{GuestMemoryMmap, VolatileSlice};

use super::buffers::Buffers;
use super::device::{QueueError, Stop, VirtioDevice, drain, feed, read_config_bytes};

/// Longest frame in either direction, in bytes.
pub const MAX_FRAME: usize = 64 << 10;

/// The network behind the interface. Frames are Ethernet's, without a checksum at their end.
pub trait NetBackend: Send {
    /// Takes the next frame that came in, if there is one; returns its length. A frame that does not fit into
    /// `buffer` ([`MAX_FRAME`] bytes) is to be dropped or cut.
    ///
    /// Once it has said `None`, the device asks again only when told that the back end is ready: after
    /// `run_queue(0)`, [`Net::RECEIVE`].
    ///
    /// # Errors
    /// When the network is out of order; to the device that is as if nothing had come in.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Sends the frame that these parts make up.
    ///
    /// # Errors
    /// When it could not be sent; it is dropped.
    fn send(&mut self, frame: &[VolatileSlice<'_>]) -> io::Result<()>;
}

/// The device.
pub struct Net {
    backend: Box<dyn NetBackend>,
    mac: [u8; 6],
    staging: Box<[u8]>,
    /// Length of the frame in `staging` that waits for a buffer.
    waiting: Option<usize>,
}

// === impl Net ===

impl Net {
    /// The queue to run when the back end has frames.
    pub const RECEIVE: usize = spec::RECEIVE;
    /// The queue of the driver's frames.
    pub const TRANSMIT: usize = spec::TRANSMIT;

    /// An interface with this hardware address.
    pub fn new(backend: Box<dyn NetBackend>, mac: [u8; 6]) -> Self {
        Self {
            backend,
            mac,
            staging: vec![0; MAX_FRAME].into_boxed_slice(),
            waiting: None,
        }
    }

    /// The length of the frame in `staging`, taking one from the back end if none waits there.
    fn next_frame(&mut self) -> Option<usize> {
        if self.waiting.is_none() {
            self.waiting = self.backend.receive(&mut self.staging).ok().flatten();
        }
        // A back end that claims more than it was given room for gets no more than that.
        self.waiting.map(|len| len.min(MAX_FRAME))
    }

    /// Puts header and waiting frame into the driver's buffer; one that is too small goes back empty, and the frame is
    /// lost.
    fn deliver(&mut self, buffers: &mut Buffers<'_>) -> u32 {
        let (_, mut to) = buffers.parts();
        let frame = &self.staging[..self.waiting.take().map_or(0, |len| len.min(MAX_FRAME))];
        let len = spec::HEADER_LEN + frame.len();
        if to.len() < len as u64 {
            return 0;
        }
        to.write(&spec::RECEIVED);
        to.write(frame);
        u32::try_from(len).expect("MAX_FRAME is far below 4 GiB")
    }

    fn transmit(&mut self, buffers: &mut Buffers<'_>) {
        let (mut frame, _) = buffers.parts();
        let mut header = [0; spec::HEADER_LEN];
        if frame.read(&mut header) == header.len()
            && spec::is_plain(header)
            && (spec::MIN_FRAME..=MAX_FRAME as u64).contains(&frame.len())
        {
            // A network may lose frames, and nobody could be told.
            let _ = self.backend.send(frame.slices());
        }
    }
}

impl VirtioDevice for Net {
    fn id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        spec::FEATURE_MAC
    }

    fn queue_sizes(&self) -> &[u16] {
        &spec::QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.mac, offset, data);
    }

    fn process(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Stop, QueueError> {
        if index == spec::RECEIVE {
            return feed(
                self,
                queue,
                memory,
                |net| net.next_frame().is_some(),
                Self::deliver,
            );
        }
        drain(queue, memory, |buffers| {
            self.transmit(buffers);
            Ok(0)
        })
    }

    fn reset(&mut self) {
        self.waiting = None;
    }
}
