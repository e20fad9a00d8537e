//! What a process sees of its guest RAM.

use super::*;
use vm_memory::{Address, Bytes, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

const SIZE: MemorySize = MemorySize::from_mib(32);

fn backed(backing: MemoryBacking) -> GuestRam {
    back(SIZE, backing).unwrap()
}

fn start(ram: &GuestRam) -> usize {
    let region = ram.memory().iter().next().unwrap();
    region.get_host_address(MemoryRegionAddress(0)).unwrap().addr()
}

/// The lines that `smaps` has about the mapping with this address.
fn smaps(address: usize) -> String {
    let all = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = all
        .lines()
        .skip_while(|line| !line.starts_with(&format!("{address:x}-")));
    let head = lines.next().unwrap_or_default();
    let body: Vec<&str> = lines
        .take_while(|line| !line.split_whitespace().next().unwrap_or_default().contains('-'))
        .collect();
    format!("{head}\n{}", body.join("\n"))
}

fn kib(smaps: &str, field: &str) -> u64 {
    let line = smaps.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn ram_starts_where_the_map_says_and_is_zero() {
    let memory = map(SIZE).unwrap();
    assert_eq!(
        memory
            .read_obj::<u64>(GuestAddress(RAM_BASE + SIZE.bytes() - 8))
            .unwrap(),
        0
    );
    assert!(
        memory
            .read_obj::<u64>(GuestAddress(RAM_BASE + SIZE.bytes()))
            .is_err()
    );
}

#[test]
fn private_ram_has_a_name_and_takes_what_is_touched() {
    let ram = backed(MemoryBacking {
        thp: Thp::Never,
        ..MemoryBacking::default()
    });
    let before = smaps(start(&ram));
    let head = before.lines().next().unwrap();
    assert!(
        head.ends_with("[anon:rvmm-guest-ram]") || head.ends_with("/dev/zero"),
        "{head}"
    );
    assert_eq!((kib(&before, "Size:"), kib(&before, "Rss:")), (32 << 10, 0));
    ram.memory().write_obj(1u8, GuestAddress(RAM_BASE)).unwrap();
    assert_eq!(kib(&smaps(start(&ram)), "Rss:"), 4);
}

#[test]
fn the_other_name_is_that_of_the_zero_device() {
    let len = usize::try_from(SIZE.bytes()).unwrap();
    let region = build(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None).unwrap();
    name_by_file(&region, len).unwrap();
    let shown = smaps(region.as_ptr().addr());
    assert!(shown.lines().next().unwrap().ends_with("/dev/zero"), "{shown}");
    assert_eq!(kib(&shown, "Size:"), 32 << 10);
}

#[test]
fn shared_ram_is_a_sealed_file_that_others_can_map() {
    let ram = backed(MemoryBacking {
        shared: true,
        ..MemoryBacking::default()
    });
    let shown = smaps(start(&ram));
    assert!(
        shown.lines().next().unwrap().contains("/memfd:rvmm-guest-ram"),
        "{shown}"
    );
    let region = ram.memory().iter().next().unwrap();
    let file = region.file_offset().unwrap().file();
    ram.memory()
        .write_obj(0x55u8, region.start_addr().unchecked_add(7))
        .unwrap();
    let mut byte = [0];
    std::os::unix::fs::FileExt::read_at(file, &mut byte, 7).unwrap();
    assert_eq!(byte, [0x55]);
    assert!(file.set_len(0).is_err(), "a sealed file cannot shrink");
}

#[test]
fn prefaulted_ram_is_all_there_at_the_start() {
    let ram = backed(MemoryBacking {
        prefault: true,
        ..MemoryBacking::default()
    });
    assert_eq!(kib(&smaps(start(&ram)), "Rss:"), 32 << 10);
}

#[test]
fn huge_pages_that_the_host_has_not_are_refused_with_what_to_do() {
    let backing = MemoryBacking {
        huge_pages: Some(HugePages::OneGib),
        ..MemoryBacking::default()
    };
    // No machine that runs tests has 256 GiB in such pages.
    let error = back(MemorySize::from_mib(256 << 10), backing).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("reserve them with 'sysctl vm.nr_hugepages'")
            || text.starts_with("the host has no huge pages of 1 GiB"),
        "{text}"
    );
}
