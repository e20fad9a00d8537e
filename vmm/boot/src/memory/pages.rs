//! Pages that are taken before the guest touches them: out of the host's pools of huge pages, or by prefault.

use std::io;
use std::thread;

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::mm::Advice;
use rvmm_spec::{HugePages, MemorySize};
use vm_memory::MmapRegion;

use super::{MemoryError, in_file};

/// Most threads that take pages side by side. Zeroing them is bound by the memory's speed, not by the CPUs.
pub const MAX_PREFAULT_THREADS: usize = 8;

/// Least bytes that are worth a thread.
const THREADS_SHARE: usize = 1 << 30;

/// A mapping of huge pages, all of which the kernel has reserved when this returns.
pub(super) fn map(
    size: MemorySize,
    len: usize,
    pages: HugePages,
    shared: bool,
) -> Result<MmapRegion, MemoryError> {
    let kind = match pages {
        HugePages::TwoMib => MemfdFlags::HUGE_2MB,
        HugePages::OneGib => MemfdFlags::HUGE_1GB,
    };
    in_file(len, MemfdFlags::HUGETLB | kind, shared).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NOMEM) => small_pool(size, pages),
        Some(Errno::NODEV | Errno::NOENT | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
            MemoryError::NoPool(pages, error)
        }
        _ => MemoryError::Map(size, error),
    })
}

fn small_pool(size: MemorySize, pages: HugePages) -> MemoryError {
    let folder = format!("/sys/kernel/mm/hugepages/hugepages-{}kB", pages.bytes() >> 10);
    let number = |name: &str| {
        let text = std::fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    MemoryError::SmallPool {
        size: pages,
        // Pages that another mapping has reserved are free and yet not to be had.
        free: number("free_hugepages").saturating_sub(number("resv_hugepages")),
        needed: size.bytes() / pages.bytes(),
        pool: format!("{folder}/nr_hugepages"),
    }
}

/// Takes every page now, side by side where there is much to take.
pub(super) fn prefault(region: &MmapRegion) -> io::Result<()> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let threads = (region.size() / THREADS_SHARE).clamp(1, cpus.min(MAX_PREFAULT_THREADS));
    let share = (region.size() / threads).next_multiple_of(THREADS_SHARE.min(region.size()));
    let start = region.as_ptr().expose_provenance();
    thread::scope(|scope| {
        let pieces = (0..region.size()).step_by(share);
        let workers: Vec<_> = pieces
            .map(|offset| scope.spawn(move || populate(start + offset, share.min(region.size() - offset))))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread ended")))
        })
    })
}

fn populate(address: usize, len: usize) -> io::Result<()> {
    let start = std::ptr::with_exposed_provenance_mut(address);
    #[expect(unsafe_code, reason = "the kernel is given advice on a mapping of ours")]
    // SAFETY: the range lies within one live mapping, which the caller borrows; the advice changes no byte of it.
    unsafe { rustix::mm::madvise(start, len, Advice::LinuxPopulateWrite) }?;
    Ok(())
}
