//! Guest RAM in a process that maps nothing else meanwhile.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvmm_boot::memory::{self, FENCE};
use rvmm_spec::{MemoryBacking, MemorySize};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

/// Whether memory without access is mapped there.
fn is_shut(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| {
        let (range, rest) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|hex| usize::from_str_radix(hex, 16).unwrap());
        (from..to).contains(&address) && rest.starts_with("---p")
    })
}

#[test]
fn a_fence_stands_on_either_side_until_the_ram_goes() {
    // More than the gaps that the C library leaves between the heaps of threads.
    let size = MemorySize::from_mib(256);
    let ram = memory::back(size, MemoryBacking::default()).unwrap();
    let region = ram.memory().iter().next().unwrap();
    let start = region.get_host_address(MemoryRegionAddress(0)).unwrap().addr();
    let end = start + usize::try_from(size.bytes()).unwrap();
    assert!(is_shut(start - FENCE) && is_shut(end));
    assert_eq!(start % (2 << 20), 0);
    drop(ram);
    assert!(!is_shut(start - FENCE) && !is_shut(end));
}
