//! What a virtio device has to do, whatever it is reached through; and the two loops that they share: [`drain`] a queue, [`feed`] one.

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::buffers::Buffers;
use super::chain::Chain;

/// Bytes that one call of [`drain`] moves before it lets other devices have their turn; the last request may go
/// beyond it.
pub const MAX_BYTES_PER_TURN: u64 = 4 << 20;

/// One device.
///
/// The transport keeps the order: `activate`, then any number of `process`, then `reset`, and so on. Config space
/// may be read and written at any time.
pub trait VirtioDevice: Send {
    /// The device type, one of `virtio_bindings::virtio_ids`.
    fn id(&self) -> u32;

    /// The feature bits of this device type. Those of the ring and of version 1 are the transport's.
    fn features(&self) -> u64;

    /// The size of each queue: powers of two up to 32768. Constant over the device's life.
    fn queue_sizes(&self) -> &[u16];

    /// Reads config space; what lies beyond it reads as zeros.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes config space; most devices have nothing there that can be written.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready; it has accepted these of the offered features.
    fn activate(&mut self, _acked: u64) {}

    /// Does what can be done on this queue now, within a bounded number of chains and bytes.
    ///
    /// # Errors
    /// When the driver broke the rules of virtqueues. The device is then not called again before a reset.
    fn process(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Stop, QueueError>;

    /// Another queue that got work by what was just done on one; it is run soon. Asked once after each `process`.
    fn follow_up(&mut self) -> Option<usize> {
        None
    }

    /// For a device whose rings another process serves: which of the rings' features that process knows. `process` then
    /// only tells it where the rings are and that they were kicked, and [`Core::announce`] says what it has used.
    ///
    /// [`Core::announce`]: super::Core::announce
    fn served_elsewhere(&self) -> Option<u64> {
        None
    }

    /// The driver takes a queue back, and may start it again elsewhere.
    fn stop_queue(&mut self, _index: usize) {}

    /// The driver has reset the device: forget all that came from it.
    fn reset(&mut self) {}
}

/// Why a device stopped working on a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The driver has made nothing more available: its next kick goes on.
    Empty,
    /// The back end has nothing to give: its readiness goes on.
    BackendIdle,
    /// There is more to do, after others had their turn.
    Busy,
}

/// How a driver broke the rules of virtqueues.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The rings are misplaced or their indices make no sense.
    #[error("the driver's rings cannot be used")]
    Ring(#[from] virtio_queue::Error),
    /// A ring lies outside RAM.
    #[error("the driver's rings are not in RAM")]
    RingOutsideRam,
    /// A chain of descriptors that loops, leaves its table, or has a bad indirect table.
    #[error("a descriptor chain breaks off")]
    BrokenChain,
    /// More descriptors than the queue has.
    #[error("a descriptor chain has more than {0} descriptors")]
    LongChain(u16),
    /// What the device may write must come after what it may read.
    #[error("a descriptor chain has a readable buffer after a writable one")]
    MixedChain,
    /// A buffer is not in RAM.
    #[error("a descriptor points outside RAM")]
    OutsideRam(#[source] GuestMemoryError),
    /// More chains under way than the queue has places.
    #[error("the driver has more chains under way than its queue has places")]
    TooManyChains,
    /// The process that serves the rings does not, any more.
    #[error("nobody serves the driver's rings")]
    Unserved(#[source] std::io::Error),
    /// A request has no room for its answer.
    #[error("a request has no room for its status")]
    NoStatus,
}

/// The next chain that the driver made available.
///
/// # Errors
/// When the index of the available ring makes no sense.
pub fn next_chain<'m>(
    queue: &mut Queue,
    memory: &'m GuestMemoryMmap,
) -> Result<Option<Chain<'m>>, QueueError> {
    let head = queue.iter(memory)?.next().map(|chain| chain.head_index());
    let table = GuestAddress(queue.desc_table());
    Ok(head.map(|head| Chain::new(memory, table, queue.size(), head)))
}

/// Serves available chains one after the other: `serve` does what a chain wants and says how many bytes it wrote.
///
/// # Errors
/// Those of the ring, of a malformed chain, and of `serve`.
pub fn drain(
    queue: &mut Queue,
    memory: &GuestMemoryMmap,
    mut serve: impl FnMut(&mut Buffers) -> Result<u32, QueueError>,
) -> Result<Stop, QueueError> {
    let mut buffers = Buffers::default();
    let mut bytes = 0;
    for _ in 0..queue.size() {
        let Some(chain) = next_chain(queue, memory)? else {
            return Ok(Stop::Empty);
        };
        let head = chain.head_index();
        buffers.load(chain, memory, queue.size())?;
        bytes += buffers.len();
        let written = serve(&mut buffers)?;
        queue.add_used(memory, head, written)?;
        if bytes >= MAX_BYTES_PER_TURN {
            break;
        }
    }
    Ok(Stop::Busy)
}

/// Fills available chains with what a back end has, one piece or frame a chain: `waiting` says whether there is one,
/// taking it from the back end if need be, and `fill` puts it into the buffers and says how many bytes it wrote.
///
/// # Errors
/// Those of the ring and of a malformed chain.
pub fn feed<D>(
    device: &mut D,
    queue: &mut Queue,
    memory: &GuestMemoryMmap,
    waiting: impl Fn(&mut D) -> bool,
    fill: impl Fn(&mut D, &mut Buffers) -> u32,
) -> Result<Stop, QueueError> {
    let mut buffers = Buffers::default();
    for _ in 0..queue.size() {
        if !waiting(device) {
            return Ok(Stop::BackendIdle);
        }
        let Some(chain) = next_chain(queue, memory)? else {
            return Ok(Stop::Empty);
        };
        let head = chain.head_index();
        buffers.load(chain, memory, queue.size())?;
        let written = fill(device, &mut buffers);
        queue.add_used(memory, head, written)?;
    }
    Ok(Stop::Busy)
}

/// Reads out of a config space laid out as bytes; zeros beyond its end.
pub fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|offset| config.get(offset..))
        .unwrap_or_default();
    for (to, from) in data.iter_mut().zip(rest) {
        *to = *from;
    }
}
