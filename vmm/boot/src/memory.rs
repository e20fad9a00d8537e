//! Guest RAM: one anonymous mapping, named so that tools can tell it from rvmm's own memory.

use std::io;

use rustix::mm::Advice;
use rvmm_spec::MemorySize;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};

use crate::RAM_BASE;

/// The mapping's name in `/proc/<pid>/smaps`: `[anon:rvmm-guest-ram]`.
pub const NAME: &std::ffi::CStr = c"rvmm-guest-ram";

/// Maps guest RAM. Pages cost nothing until the guest touches them.
///
/// # Errors
/// When the host has not so much address space.
pub fn map(size: MemorySize) -> io::Result<GuestMemoryMmap> {
    let len = usize::try_from(size.bytes()).map_err(io::Error::other)?;
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM_BASE), len)]).map_err(io::Error::other)?;
    for region in memory.iter() {
        let start = region
            .get_host_address(MemoryRegionAddress(0))
            .map_err(io::Error::other)?;
        advise(start, len);
    }
    Ok(memory)
}

/// Huge pages save the host stage-2 faults; a core dump of rvmm must not hold the guest; the name is for tools.
/// None of these is needed to run, and kernels may lack each.
#[expect(unsafe_code, reason = "the kernel is given advice on a mapping of ours")]
fn advise(start: *mut u8, len: usize) {
    for advice in [Advice::LinuxHugepage, Advice::LinuxDontDump] {
        // SAFETY: the range is exactly one live mapping, and neither advice changes what its bytes are.
        unsafe { rustix::mm::madvise(start.cast(), len, advice) }.ok();
    }
    // SAFETY: the range is exactly one live mapping; only its name changes, and the slice is used for its bounds.
    let region = unsafe { std::slice::from_raw_parts(start, len) };
    rustix::process::set_virtual_memory_region_name(region, Some(NAME)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn ram_starts_where_the_map_says_and_is_zero() {
        let memory = map(MemorySize::from_mib(32)).unwrap();
        assert_eq!(
            memory
                .read_obj::<u64>(GuestAddress(RAM_BASE + (32 << 20) - 8))
                .unwrap(),
            0
        );
        assert!(
            memory
                .read_obj::<u64>(GuestAddress(RAM_BASE + (32 << 20)))
                .is_err()
        );
    }
}
