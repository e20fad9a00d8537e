//! Guest memory that goes back to the host's kernel while the guest runs.
//!
//! ```text
//!   slices in any order ─► whole host pages ─► sorted and merged ─► madvise, once a run
//! ```
//!
//! A private page is forgotten (`MADV_DONTNEED`), one of a shared mapping is cut out of its file (`MADV_REMOVE`): for
//! those, forgetting alone would keep the memory.

use std::io;
use std::ops::Range;

use rustix::mm::Advice;
use rvmm_devices::virtio::balloon::PageRelease;
use vm_memory::VolatileSlice;

/// Bytes of a page: riscv64 has no others, but huge ones, which the kernel splits or keeps as it likes.
const PAGE: usize = 4096;

/// Gives pages back.
#[derive(Debug, Default)]
pub struct HostPages {
    /// Which of the two ways the mapping wants: the kernel's answer to the first release tells.
    way: Option<Advice>,
}

// === impl HostPages ===

impl HostPages {
    fn forget(&mut self, run: &Range<usize>) -> io::Result<()> {
        if let Some(way) = self.way {
            return advise(run, way);
        }
        // Only something that is shared can be cut out of its file.
        let way = match advise(run, Advice::LinuxRemove) {
            Ok(()) => Advice::LinuxRemove,
            Err(_) => {
                advise(run, Advice::LinuxDontNeed)?;
                Advice::LinuxDontNeed
            }
        };
        self.way = Some(way);
        Ok(())
    }
}

impl PageRelease for HostPages {
    fn release(&mut self, pages: &[VolatileSlice<'_>]) -> io::Result<()> {
        // The slices keep the memory mapped for as long as this runs.
        let whole = pages
            .iter()
            .map(|slice| whole_pages(slice.ptr_guard_mut().as_ptr().addr(), slice.len()));
        let mut runs: Vec<_> = whole.filter(|run| !run.is_empty()).collect();
        merge(&mut runs);
        runs.iter().try_for_each(|run| self.forget(run))
    }
}

/// The pages that lie inside as a whole.
fn whole_pages(start: usize, len: usize) -> Range<usize> {
    let end = start.saturating_add(len);
    start.next_multiple_of(PAGE)..end - end % PAGE
}

/// Sorts, and makes one of those that touch or overlap.
fn merge(runs: &mut Vec<Range<usize>>) {
    runs.sort_unstable_by_key(|run| run.start);
    runs.dedup_by(|next, run| {
        let touches = next.start <= run.end;
        if touches {
            run.end = run.end.max(next.end);
        }
        touches
    });
}

#[expect(unsafe_code, reason = "the kernel takes memory back by its address")]
fn advise(run: &Range<usize>, advice: Advice) -> io::Result<()> {
    let start = std::ptr::without_provenance_mut(run.start);
    // SAFETY: the run lies inside slices of guest memory that the caller holds, and so inside live mappings of it.
    // Guest memory may change at any moment, and nothing of ours is in it, so that its bytes may become others.
    unsafe { rustix::mm::madvise(start, run.len(), advice) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::File;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::fs::MetadataExt;
    use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

    const LEN: usize = 64 << 10;

    fn slice(memory: &GuestMemoryMmap, start: u64, len: usize) -> VolatileSlice<'_> {
        memory.get_slice(GuestAddress(start), len).unwrap()
    }

    fn filled(memory: GuestMemoryMmap) -> GuestMemoryMmap {
        memory.write_slice(&[0x5a; LEN], GuestAddress(0)).unwrap();
        memory
    }

    /// Which pages still hold what was written.
    fn kept(memory: &GuestMemoryMmap) -> Vec<u64> {
        let still = |page: &u64| memory.read_obj::<u8>(GuestAddress(page << 12)).unwrap() == 0x5a;
        (0..LEN as u64 >> 12).filter(still).collect()
    }

    #[test]
    fn whole_pages_of_private_memory_are_given_back_and_read_as_zeros() {
        let memory = filled(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), LEN)]).unwrap());
        let mut pages = HostPages::default();
        let slices = [
            slice(&memory, 0x3000, 0x1000),
            slice(&memory, 0x2000, 0x1000),
            slice(&memory, 0x2000, 0x1000),
            slice(&memory, 0x5800, 0x2000),
        ];
        pages.release(&slices).unwrap();
        pages.release(&[slice(&memory, 0xf000, 0xfff)]).unwrap();
        assert_eq!(kept(&memory), [0, 1, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    }

    #[test]
    fn pages_of_shared_memory_leave_their_file() {
        let fd: OwnedFd = rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(fd);
        file.set_len(LEN as u64).unwrap();
        let view = file.as_fd().try_clone_to_owned().unwrap();
        let region = (GuestAddress(0), LEN, Some(FileOffset::new(file, 0)));
        let memory = filled(GuestMemoryMmap::from_ranges_with_files([region]).unwrap());
        let blocks = || File::from(view.try_clone().unwrap()).metadata().unwrap().blocks();
        let before = blocks();
        HostPages::default()
            .release(&[slice(&memory, 0, 0x8000)])
            .unwrap();
        assert_eq!((before, blocks()), (LEN as u64 / 512, LEN as u64 / 1024));
        assert_eq!(kept(&memory), [8, 9, 10, 11, 12, 13, 14, 15]);
    }

    proptest! {
        #[test]
        fn merged_runs_cover_the_same_pages_and_touch_no_more(starts in proptest::collection::vec((0usize..60, 1usize..6), 0..40)) {
            let mut runs: Vec<_> = starts.iter().map(|&(start, len)| start..start + len).collect();
            let covered = |runs: &[Range<usize>]| (0..70).filter(|at| runs.iter().any(|run| run.contains(at))).collect::<Vec<_>>();
            let before = covered(&runs);
            merge(&mut runs);
            prop_assert_eq!(covered(&runs), before);
            prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
