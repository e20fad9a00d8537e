//! Guest RAM as a mapping of this process, between two fences, and named so that tools can tell it from rvmm's own memory.
//!
//! | backing | the mapping | its name in `/proc/<pid>/smaps` |
//! | --- | --- | --- |
//! | private | anonymous | `[anon:rvmm-guest-ram]` |
//! | private, on kernels that name no anonymous memory | a private one of `/dev/zero`, which is anonymous memory too | `/dev/zero` |
//! | shared, or of huge pages | a sealed memory file | `/memfd:rvmm-guest-ram` |
//!
//! Nothing else in rvmm has one of these names. Guest RAM begins on a 2 MiB border here as it does for the guest, so that a
//! huge page of the host can be one of the guest.

mod fence;
mod pages;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rvmm_spec::{HugePages, MemoryBacking, MemorySize, Thp};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::RAM_BASE;
pub use fence::FENCE;
use fence::{Fences, Site};
pub use pages::MAX_PREFAULT_THREADS;

/// What guest RAM is called in `/proc/<pid>/smaps`.
pub const NAME: &std::ffi::CStr = c"rvmm-guest-ram";

/// A private mapping of this is anonymous memory that keeps a name.
const ZERO: &str = "/dev/zero";

/// Guest RAM between two ranges that nobody may touch.
#[derive(Debug)]
pub struct GuestRam {
    memory: GuestMemoryMmap,
    _fences: Option<Fences>,
}

/// Guest RAM cannot be had as it is wanted.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has not so much address space, or no memory files.
    #[error("{0} of guest memory cannot be had")]
    Map(MemorySize, #[source] io::Error),
    /// The host has no pool of such pages.
    #[error("the host has no huge pages of {0}; take another size, or leave out 'hugepages'")]
    NoPool(HugePages, #[source] io::Error),
    /// The pool holds too few.
    #[error(
        "the host's pool has {free} free huge pages of {size}, and guest memory needs {needed}: reserve them with \
         'sysctl vm.nr_hugepages' or in {pool}, or leave out 'hugepages'"
    )]
    SmallPool {
        /// Of one page.
        size: HugePages,
        /// What there is.
        free: u64,
        /// What it takes.
        needed: u64,
        /// Where the pool is made larger.
        pool: String,
    },
    /// The host has not the memory, or its kernel is older than 5.14.
    #[error("{0} of guest memory cannot be taken in advance ('prefault')")]
    Prefault(MemorySize, #[source] io::Error),
}

// === impl GuestRam ===

impl GuestRam {
    /// Guest RAM as devices and hypervisor use it.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }
}

/// Maps private guest RAM. Pages cost nothing until they are touched.
///
/// # Errors
/// When the host has not so much address space.
pub fn map(size: MemorySize) -> Result<GuestMemoryMmap, MemoryError> {
    back(size, MemoryBacking::default()).map(|ram| ram.memory)
}

/// Maps guest RAM as it is wanted.
///
/// # Errors
/// What the host lacks for it, and what can be done.
pub fn back(size: MemorySize, backing: MemoryBacking) -> Result<GuestRam, MemoryError> {
    let failed = |error| MemoryError::Map(size, error);
    let len = usize::try_from(size.bytes())
        .map_err(io::Error::other)
        .map_err(failed)?;
    let site = Site::reserve(len);
    let region = match (backing.huge_pages, backing.shared) {
        (Some(pages), shared) => pages::map(size, len, pages, shared)?,
        (None, true) => in_file(len, MemfdFlags::empty(), true).map_err(failed)?,
        (None, false) => private(len).map_err(failed)?,
    };
    advise(&region, backing.thp);
    let fences = site.and_then(|site| site.close(region.as_ptr(), len));
    if backing.prefault {
        pages::prefault(&region).map_err(|error| MemoryError::Prefault(size, error))?;
    }
    let region = GuestRegionMmap::new(region, GuestAddress(RAM_BASE))
        .ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let memory = GuestMemoryMmap::from_regions(vec![region])
        .map_err(io::Error::other)
        .map_err(failed)?;
    Ok(GuestRam {
        memory,
        _fences: fences,
    })
}

/// Anonymous memory with a name, which every kernel shows in one of two ways.
fn private(len: usize) -> io::Result<MmapRegion> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let region = build(len, flags, None)?;
    #[expect(unsafe_code, reason = "the slice stands for the range that gets a name")]
    // SAFETY: the range is exactly one live mapping; only its name changes, and the slice is used for its bounds.
    let range = unsafe { std::slice::from_raw_parts(region.as_ptr(), len) };
    if rustix::process::set_virtual_memory_region_name(range, Some(NAME)).is_err() {
        name_by_file(&region, len)?;
    }
    Ok(region)
}

/// Puts anonymous memory of `/dev/zero` in the place of nameless anonymous memory. A new mapping of the file might not
/// be put on a 2 MiB border; in the place of one that was, it is. Where there is no such file, the memory has no name.
#[expect(unsafe_code, reason = "a mapping of ours is replaced")]
fn name_by_file(region: &MmapRegion, len: usize) -> io::Result<()> {
    let Ok(zero) = File::options().read(true).write(true).open(ZERO) else {
        return Ok(());
    };
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: the range is exactly the mapping that `region` owns, which nobody has used yet.
    unsafe { rustix::mm::mmap(region.as_ptr().cast(), len, access, flags, zero, 0) }?;
    Ok(())
}

/// A mapping of a memory file of exactly this length, which can change no more.
fn in_file(len: usize, kind: MemfdFlags, shared: bool) -> io::Result<MmapRegion> {
    let flags = kind | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file: OwnedFd = rustix::fs::memfd_create(NAME, flags)?;
    rustix::fs::ftruncate(&file, len as u64)?;
    // Cut short by whoever it is shared with, it would kill us at the next access.
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let mode = if shared {
        libc::MAP_SHARED
    } else {
        libc::MAP_PRIVATE
    };
    build(len, mode, Some(FileOffset::new(file.into(), 0)))
}

fn build(len: usize, flags: i32, file: Option<FileOffset>) -> io::Result<MmapRegion> {
    let builder = MmapRegionBuilder::new(len)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(flags);
    let builder = match file {
        Some(file) => builder.with_file_offset(file),
        None => builder,
    };
    builder.build().map_err(|error| match error {
        vm_memory::mmap::MmapRegionError::Mmap(error) => error,
        other => io::Error::other(other),
    })
}

/// A core dump of rvmm must not hold the guest; whether huge pages may, was asked. Neither is needed to run.
fn advise(region: &MmapRegion, thp: Thp) {
    let huge = match thp {
        Thp::Always => Advice::LinuxHugepage,
        Thp::Never => Advice::LinuxNoHugepage,
    };
    for advice in [huge, Advice::LinuxDontDump] {
        #[expect(unsafe_code, reason = "the kernel is given advice on a mapping of ours")]
        // SAFETY: the range is exactly one live mapping, and neither advice changes what its bytes are.
        unsafe { rustix::mm::madvise(region.as_ptr().cast(), region.size(), advice) }.ok();
    }
}

#[cfg(test)]
mod tests;
