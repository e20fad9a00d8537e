//! From the network into the driver's buffers.
//!
//! With mergeable buffers (5.1.6.4) a frame takes as many as it needs. While there are too few, it waits, and the chains
//! that are there stay where they are: they are looked at again when the driver has added to them. All buffers of a
//! frame become used at the same moment, since a driver takes the first as a promise of the others.

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, VolatileSlice};

use super::header::{HEADER_LEN, set_buffers};
use super::{Link, MAX_FRAME, NetBackend};
use crate::virtio::buffers::{Buffers, Part};
use crate::virtio::device::{QueueError, Stop, next_chain};

/// A used ring begins with its flags and index; an entry is a head and a length (2.7.8).
const USED_HEADER: u64 = 4;
const USED_ENTRY: u64 = 8;

/// The receiving side of a pair of queues.
pub(super) struct Receiver {
    staging: Box<[u8]>,
    /// Length of header and frame in `staging` that wait for buffers.
    waiting: Option<usize>,
    /// Chains that were taken for that frame, and are too few.
    taken: u16,
}

/// The buffers for one frame.
#[derive(Default)]
struct Room<'m> {
    slices: Vec<VolatileSlice<'m>>,
    /// Each chain's head and its bytes.
    chains: Vec<(u16, u64)>,
    bytes: u64,
}

// === impl Receiver ===

impl Receiver {
    pub(super) fn receive(
        &mut self,
        backend: &mut dyn NetBackend,
        link: &Link,
        mergeable: bool,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Stop, QueueError> {
        let mut room = Room::default();
        let mut buffers = Buffers::default();
        for _ in 0..queue.size() {
            if !self.next_frame(backend) {
                return Ok(Stop::BackendIdle);
            }
            if !link.is_up() {
                self.waiting = None;
                continue;
            }
            if !self.gather(&mut room, &mut buffers, mergeable, queue, memory)? {
                return Ok(Stop::Empty);
            }
            self.deliver(&mut room, queue, memory)?;
        }
        Ok(Stop::Busy)
    }

    /// Whether there is a frame in `staging`, taking one from the back end if none waits there.
    fn next_frame(&mut self, backend: &mut dyn NetBackend) -> bool {
        if self.waiting.is_none() {
            let received = backend.receive(&mut self.staging).ok().flatten();
            // A back end that claims more than it was given room for gets no more than that.
            self.waiting = received.map(|len| len.min(self.staging.len()));
        }
        self.waiting.is_some()
    }

    /// Takes chains until the frame fits: one, or with mergeable buffers as many as it needs. Whether there were enough.
    fn gather<'m>(
        &mut self,
        room: &mut Room<'m>,
        buffers: &mut Buffers<'m>,
        mergeable: bool,
        queue: &mut Queue,
        memory: &'m GuestMemoryMmap,
    ) -> Result<bool, QueueError> {
        // Those taken before count as not taken: a driver that has more of them under way than its queue has places is
        // found out by the next look at the ring.
        queue.set_next_avail(queue.next_avail().wrapping_sub(std::mem::take(&mut self.taken)));
        room.clear();
        let wanted = self.waiting.unwrap_or(0) as u64;
        loop {
            let Some(chain) = next_chain(queue, memory)? else {
                self.taken = u16::try_from(room.chains.len()).unwrap_or(u16::MAX);
                return Ok(false);
            };
            let head = chain.head_index();
            if room.chains.len() >= usize::from(queue.size()) {
                return Err(QueueError::TooManyChains);
            }
            buffers.load(chain, memory, queue.size())?;
            room.add(head, buffers.parts().1.slices());
            if room.bytes >= wanted || !mergeable {
                return Ok(true);
            }
        }
    }

    /// Puts header and frame into the buffers. Without mergeable ones, a buffer that is too small goes back empty, and
    /// the frame is lost.
    fn deliver(
        &mut self,
        room: &mut Room<'_>,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<(), QueueError> {
        let len = self.waiting.take().unwrap_or(0);
        let mut left = len as u64;
        if room.bytes < left || len < HEADER_LEN {
            left = 0;
        } else {
            let count = u16::try_from(room.chains.len()).unwrap_or(u16::MAX);
            set_buffers(&mut self.staging, count);
            Part::over(&mut room.slices).write(&self.staging[..len]);
        }
        let used: Vec<_> = room
            .chains
            .iter()
            .map(|&(head, bytes)| {
                let written = bytes.min(left);
                left -= written;
                (head, u32::try_from(written).expect("a frame is far below 4 GiB"))
            })
            .collect();
        use_together(queue, memory, &used)
    }
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            staging: vec![0; HEADER_LEN + MAX_FRAME].into_boxed_slice(),
            waiting: None,
            taken: 0,
        }
    }
}

// === impl Room ===

impl<'m> Room<'m> {
    fn clear(&mut self) {
        self.slices.clear();
        self.chains.clear();
        self.bytes = 0;
    }

    fn add(&mut self, head: u16, slices: &[VolatileSlice<'m>]) {
        let bytes = slices.iter().map(|slice| slice.len() as u64).sum();
        self.slices.extend_from_slice(slices);
        self.chains.push((head, bytes));
        self.bytes += bytes;
    }
}

/// Makes chains used in one step: the driver sees none of them or all.
fn use_together(queue: &mut Queue, memory: &GuestMemoryMmap, used: &[(u16, u32)]) -> Result<(), QueueError> {
    let Some((&(head, len), others)) = used.split_last() else {
        return Ok(());
    };
    let (first, size) = (queue.next_used(), queue.size());
    let mut last = first;
    for &(head, len) in others {
        let entry = u64::from(last % size) * USED_ENTRY;
        let place = GuestAddress(queue.used_ring() + USED_HEADER + entry);
        let entry = [u32::from(head).to_le(), len.to_le()];
        memory.write_obj(entry, place).map_err(QueueError::OutsideRam)?;
        last = last.wrapping_add(1);
    }
    // The first of these shows the driver all of them; the others write the same again, and let the queue count how
    // many there were, on which it depends whether the driver wants an interrupt.
    for _ in used {
        queue.set_next_used(last);
        queue.add_used(memory, head, len)?;
    }
    Ok(())
}
