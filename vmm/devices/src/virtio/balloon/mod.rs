//! The memory balloon (5.5): how a host gets memory back from a guest that runs.
//!
//! ```text
//!   BalloonHandle::set_target ─► num_pages ─► inflate: page numbers ──────────────┐
//!                                             deflate: nothing to do              ├─► PageRelease
//!   (the guest by itself)  free page reports: the pages are the buffers ──────────┘
//!   statistics: one buffer of the driver's, held until BalloonHandle::refresh_stats wants newer ones
//! ```
//!
//! A page that was released reads as anything until the guest writes it; it comes back by being touched. So a guest
//! can only harm itself: with numbers of pages that it uses, of its kernel, or twice the same. Numbers that are not
//! RAM mean nothing.

mod handle;
mod spec;
#[cfg(test)]
mod tests;

pub use handle::{BalloonHandle, BalloonStats};

use std::io;

use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

use super::buffers::{Buffers, Part};
use super::device::{QueueError, Stop, VirtioDevice, drain, next_chain, read_config_bytes};
use spec::Role;

/// Pages of one request that are looked at; Linux gives up to 256 at once. The others stay the guest's.
pub const MAX_PAGES_PER_REQUEST: usize = 4096;
/// Statistics of one buffer that are looked at.
pub const MAX_STATS_PER_REQUEST: usize = 64;
/// Pages that are released at a time.
const BATCH: usize = 256;

/// What gives memory back to the host.
pub trait PageRelease: Send {
    /// Gives back what these slices of guest memory cover; they may overlap, and come in any order. Whatever is not a
    /// whole page of the host stays.
    ///
    /// # Errors
    /// The host's; the guest's memory is still there then.
    fn release(&mut self, pages: &[VolatileSlice<'_>]) -> io::Result<()>;
}

/// The device.
pub struct Balloon {
    pages: Box<dyn PageRelease>,
    handle: BalloonHandle,
    acked: u64,
    /// The driver's buffer for statistics: its return is the wish for newer ones.
    held: Option<u16>,
}

// === impl Balloon ===

impl Balloon {
    /// The queue to run when newer statistics are wanted.
    pub const STATS: usize = 2;

    /// A balloon that wants what the handle says.
    pub fn new(pages: Box<dyn PageRelease>, handle: BalloonHandle) -> Self {
        Self {
            pages,
            handle,
            acked: 0,
            held: None,
        }
    }

    fn inflate(&mut self, memory: &GuestMemoryMmap, buffers: &mut Buffers<'_>) {
        let (mut numbers, _) = buffers.parts();
        let mut batch = [0; BATCH * spec::PFN_LEN];
        for _ in 0..MAX_PAGES_PER_REQUEST / BATCH {
            let len = numbers.read(&mut batch);
            if len == 0 {
                break;
            }
            let (pages, _) = batch[..len].as_chunks();
            let slices: Vec<_> = pages.iter().filter_map(|&pfn| page(memory, pfn)).collect();
            self.release(&slices);
        }
    }

    /// What cannot be given back stays with the guest, which has no use for it: nobody is to be told.
    fn release(&mut self, pages: &[VolatileSlice<'_>]) {
        if !pages.is_empty() && self.pages.release(pages).is_ok() {
            let bytes = pages.iter().map(|page| page.len() as u64).sum();
            self.handle.shared().add_released(bytes);
        }
    }

    fn stats(&mut self, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        let mut buffers = Buffers::default();
        for _ in 0..queue.size() {
            let Some(chain) = next_chain(queue, memory)? else {
                break;
            };
            let head = chain.head_index();
            buffers.load(chain, memory, queue.size())?;
            self.handle.shared().set_stats(read_stats(buffers.parts().0));
            // A driver has one buffer for this; should there be another one, the older is of no use.
            if let Some(older) = self.held.replace(head) {
                queue.add_used(memory, older, 0)?;
            }
        }
        if self.handle.shared().wants_stats()
            && let Some(head) = self.held.take()
        {
            queue.add_used(memory, head, 0)?;
        }
        Ok(Stop::Empty)
    }
}

/// The page with this number, as far as it is RAM.
fn page(memory: &GuestMemoryMmap, pfn: [u8; spec::PFN_LEN]) -> Option<VolatileSlice<'_>> {
    let addr = u64::from(u32::from_le_bytes(pfn)) << spec::PAGE_SHIFT;
    memory
        .get_slices(GuestAddress(addr), 1 << spec::PAGE_SHIFT)
        .next()?
        .ok()
}

fn read_stats(mut from: Part<'_, '_>) -> BalloonStats {
    let mut stats = BalloonStats::default();
    let mut stat = [0; spec::STAT_LEN];
    for _ in 0..MAX_STATS_PER_REQUEST {
        if from.read(&mut stat) < stat.len() {
            break;
        }
        let [a, b, value @ ..] = stat;
        stats.note(u16::from_le_bytes([a, b]), u64::from_le_bytes(value));
    }
    stats
}

impl VirtioDevice for Balloon {
    fn id(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        spec::FEATURE_STATS | spec::FEATURE_DEFLATE_ON_OOM | spec::FEATURE_REPORTING
    }

    fn queue_sizes(&self) -> &[u16] {
        &spec::QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; spec::CONFIG_LEN];
        let [target, actual] = self.handle.shared().config();
        config[..4].copy_from_slice(&target.to_le_bytes());
        config[4..].copy_from_slice(&actual.to_le_bytes());
        read_config_bytes(&config, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (spec::ACTUAL, Ok(&pages)) = (offset, data.try_into()) {
            self.handle.shared().set_actual(u32::from_le_bytes(pages));
        }
    }

    fn activate(&mut self, acked: u64) {
        self.acked = acked;
    }

    fn process(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Stop, QueueError> {
        match spec::role(index, self.acked) {
            Role::Stats => return self.stats(queue, memory),
            Role::Nothing => return Ok(Stop::Empty),
            Role::Inflate | Role::Deflate | Role::Reporting => {}
        }
        let role = spec::role(index, self.acked);
        drain(queue, memory, |buffers| {
            match role {
                Role::Inflate => self.inflate(memory, buffers),
                Role::Reporting => self.release(buffers.parts().1.slices()),
                Role::Deflate | Role::Stats | Role::Nothing => {}
            }
            Ok(0)
        })
    }

    fn reset(&mut self) {
        self.acked = 0;
        self.held = None;
        self.handle.shared().reset();
    }
}
