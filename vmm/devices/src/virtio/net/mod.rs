//! The virtio network device (5.1): one Ethernet interface with up to [`MAX_PAIRS`] pairs of queues.
//!
//! ```text
//!   receive:  NetBackend::receive ─► staging (header + frame) ─► as many buffers of the driver's as it needs
//!                                       └─ stays while the driver has given too few
//!   transmit: header (checked) │ frame ─► NetBackend::send, straight from guest memory
//!   control:  pairs of queues in use, offloads that the driver takes
//! ```
//!
//! The header says what is left undone in a frame: its checksum, its being cut into segments. Between a guest and a tap
//! nobody need do it, which is where a fast network comes from. What a driver says there is held against what was
//! agreed upon (`header`) before the host's kernel sees it.
//!
//! A frame that cannot be delivered (too short, too long, with a header that makes no sense, larger than the driver's
//! buffer, refused by the backend, on a link that is down) is dropped, as on any network.

mod control;
mod header;
mod link;
mod receive;
mod served;
mod spec;
#[cfg(test)]
mod tests;

pub use header::HEADER_LEN;
pub use link::Link;
pub use served::{FrameServer, ServedNet};

use std::io;

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_queue::Queue;
use vm_memory::{GuestMemoryMmap, VolatileSlice};

use super::buffers::Buffers;
use super::device::{QueueError, Stop, VirtioDevice, drain};
use control::Command;
use receive::Receiver;
use spec::Role;

/// Longest frame in either direction, in bytes: the largest packet of IP, its Ethernet header and a VLAN's.
pub const MAX_FRAME: usize = (64 << 10) - 1 + 18;
/// Most pairs of queues.
pub const MAX_PAIRS: usize = 16;

/// Work on a frame that its receiver takes over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums of TCP and UDP.
    pub checksum: bool,
    /// Segments of TCP over IPv4 that are still one.
    pub tso4: bool,
    /// Segments of TCP over IPv6 that are still one.
    pub tso6: bool,
    /// Such of them as carry congestion marks.
    pub ecn: bool,
}

/// The network behind one pair of queues. Frames are Ethernet's, without a checksum at their end, behind a header of
/// [`HEADER_LEN`] bytes.
pub trait NetBackend: Send {
    /// Whether it takes frames with work left undone, and can give such.
    fn has_offloads(&self) -> bool {
        false
    }

    /// The driver takes frames with this left undone, until it says otherwise.
    fn set_offloads(&mut self, _offloads: Offloads) {}

    /// The driver uses this pair of queues, or no longer; to begin with, it uses the first.
    fn set_used(&mut self, _used: bool) {}

    /// Takes the next frame that came in, with its header, if there is one; returns the length of both. What does not
    /// fit into `buffer` ([`HEADER_LEN`] and [`MAX_FRAME`] bytes) is to be dropped or cut.
    ///
    /// Once it has said `None`, the device asks again only when told that the back end is ready: after `run_queue` with
    /// [`Net::receive_queue`].
    ///
    /// # Errors
    /// When the network is out of order; to the device that is as if nothing had come in.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Sends the frame that these parts make up, behind this header.
    ///
    /// # Errors
    /// When it could not be sent; it is dropped.
    fn send(&mut self, header: &[u8; HEADER_LEN], frame: &[VolatileSlice<'_>]) -> io::Result<()>;
}

/// What an interface is.
#[derive(Debug, Clone, Default)]
pub struct NetOptions {
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The largest packet, if the driver is to be told.
    pub mtu: Option<u16>,
    /// Its cable.
    pub link: Link,
}

/// The device.
pub struct Net {
    pairs: Vec<Pair>,
    queue_sizes: Vec<u16>,
    options: NetOptions,
    acked: u64,
    /// Pairs that the driver uses.
    used: usize,
}

/// A pair of queues.
struct Pair {
    backend: Box<dyn NetBackend>,
    receiver: Receiver,
}

// === impl Net ===

impl Net {
    /// An interface with a pair of queues for each back end, of which there is one at least and [`MAX_PAIRS`] at most:
    /// the others are ignored.
    pub fn new(backends: Vec<Box<dyn NetBackend>>, options: NetOptions) -> Self {
        let pairs: Vec<_> = backends.into_iter().take(MAX_PAIRS).map(Pair::new).collect();
        let mut queue_sizes = vec![spec::FRAME_QUEUE; 2 * pairs.len()];
        queue_sizes.push(spec::CONTROL_QUEUE);
        Self {
            pairs,
            queue_sizes,
            options,
            acked: 0,
            used: 1,
        }
    }

    /// The queue to run when this back end has frames.
    pub const fn receive_queue(pair: usize) -> usize {
        2 * pair
    }

    fn transmit(&mut self, pair: usize, buffers: &mut Buffers<'_>) {
        let (mut frame, _) = buffers.parts();
        let mut header = [0; HEADER_LEN];
        let whole = frame.read(&mut header) == header.len();
        if !whole
            || !(spec::MIN_FRAME..=MAX_FRAME as u64).contains(&frame.len())
            || !self.options.link.is_up()
        {
            return;
        }
        if let Some(header) = header::checked(&header, frame.len(), self.acked)
            && let Some(pair) = self.pairs.get_mut(pair)
        {
            // A network may lose frames, and nobody could be told.
            let _ = pair.backend.send(&header, frame.slices());
        }
    }

    fn command(&mut self, buffers: &mut Buffers<'_>) -> u32 {
        let command = control::parse(&mut buffers.parts().0);
        let done = match command {
            Some(Command::Pairs(pairs)) => self.use_pairs(usize::from(pairs)),
            Some(Command::Offloads(features)) => self.take_offloads(features),
            Some(Command::Filter) => true,
            None => false,
        };
        control::answer(buffers, done)
    }

    fn use_pairs(&mut self, pairs: usize) -> bool {
        let possible = self.acked & spec::FEATURE_MQ != 0 && (1..=self.pairs.len()).contains(&pairs);
        if possible {
            self.used = pairs;
            for (index, pair) in self.pairs.iter_mut().enumerate() {
                pair.backend.set_used(index < pairs);
            }
        }
        possible
    }

    /// A driver may take less than it has agreed to, and not more.
    fn take_offloads(&mut self, features: u64) -> bool {
        let possible = features & !(self.acked & spec::OFFLOADS) == 0;
        if possible {
            let accepted = spec::accepted(features);
            self.pairs
                .iter_mut()
                .for_each(|pair| pair.backend.set_offloads(accepted));
        }
        possible
    }
}

// === impl Pair ===

impl Pair {
    fn new(backend: Box<dyn NetBackend>) -> Self {
        Self {
            backend,
            receiver: Receiver::default(),
        }
    }
}

impl VirtioDevice for Net {
    fn id(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        let offloads = self.pairs.iter().all(|pair| pair.backend.has_offloads());
        let optional = [
            (offloads, spec::OFFLOADS),
            (self.pairs.len() > 1, spec::FEATURE_MQ),
            (self.options.mtu.is_some(), spec::FEATURE_MTU),
        ];
        let optional = optional.iter().filter(|(there, _)| *there);
        optional.fold(spec::FEATURES, |all, (_, feature)| all | feature)
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let pairs = u16::try_from(self.pairs.len()).unwrap_or(1);
        spec::read_config(&self.options, pairs, offset, data);
    }

    fn activate(&mut self, acked: u64) {
        self.acked = acked;
        let accepted = spec::accepted(acked);
        for (index, pair) in self.pairs.iter_mut().enumerate() {
            pair.backend.set_offloads(accepted);
            pair.backend.set_used(index == 0);
        }
    }

    fn process(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Stop, QueueError> {
        match spec::role(index, self.acked, self.pairs.len()) {
            Role::Receive(index) => {
                let mergeable = self.acked & spec::FEATURE_MRG_RXBUF != 0;
                let link = &self.options.link;
                let Some(Pair { backend, receiver }) = self.pairs.get_mut(index) else {
                    return Ok(Stop::Empty);
                };
                receiver.receive(&mut **backend, link, mergeable, queue, memory)
            }
            Role::Transmit(pair) => drain(queue, memory, |buffers| {
                self.transmit(pair, buffers);
                Ok(0)
            }),
            Role::Control => drain(queue, memory, |buffers| Ok(self.command(buffers))),
            Role::Nothing => Ok(Stop::Empty),
        }
    }

    fn reset(&mut self) {
        self.acked = 0;
        self.used = 1;
        self.pairs
            .iter_mut()
            .for_each(|pair| pair.receiver = Receiver::default());
    }
}
