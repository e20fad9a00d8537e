//! Kernels that can be booted, and all those that cannot.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use rvmm_spec::MemorySize;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::{KERNEL_OFFSET, RAM_BASE};

const RAM: MemorySize = MemorySize::from_mib(32);
const START: u64 = RAM_BASE + KERNEL_OFFSET;
const ROOM: Room = Room {
    start: START,
    end: RAM_BASE + (32 << 20),
};
const HEADER: usize = 64;

/// A kernel with a PE section table that says how long its file is.
fn kernel(file_len: usize, image_size: u64) -> Vec<u8> {
    let mut bytes = vec![0xa5; file_len];
    bytes[..HEADER].fill(0);
    bytes[..2].copy_from_slice(b"MZ");
    bytes[8..16].copy_from_slice(&0x20_0000u64.to_le_bytes());
    bytes[16..24].copy_from_slice(&image_size.to_le_bytes());
    bytes[48..56].copy_from_slice(b"RISCV\0\0\0");
    bytes[56..60].copy_from_slice(b"RSC\x05");
    bytes[60..64].copy_from_slice(&64u32.to_le_bytes());
    bytes[64..68].copy_from_slice(b"PE\0\0");
    bytes[70..72].copy_from_slice(&1u16.to_le_bytes());
    bytes[84..86].copy_from_slice(&0u16.to_le_bytes());
    bytes[88 + 16..88 + 20].copy_from_slice(&u32::try_from(file_len).unwrap().to_le_bytes());
    bytes[88 + 20..88 + 24].copy_from_slice(&0u32.to_le_bytes());
    bytes
}

fn load_bytes(bytes: &[u8]) -> (Result<Kernel, KernelError>, GuestMemoryMmap) {
    let memory = crate::memory::map(RAM).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let loaded = load(file.path(), &memory, ROOM);
    // Whoever only looks comes to the same conclusion, or backends would differ.
    let elsewhere = crate::memory::map(RAM).unwrap();
    let examined = examine(file.path(), &elsewhere, ROOM);
    assert_eq!(format!("{examined:?}"), format!("{loaded:?}"));
    (loaded, memory)
}

#[test]
fn an_image_that_is_only_looked_at_is_not_copied() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&kernel(1 << 20, 2 << 20)).unwrap();
    let memory = crate::memory::map(RAM).unwrap();
    let examined = examine(file.path(), &memory, ROOM).unwrap();
    assert_eq!((examined.loaded, examined.end), (1 << 20, START + (2 << 20)));
    let last: u8 = memory.read_obj(GuestAddress(START + (1 << 20) - 1)).unwrap();
    assert_eq!(last, 0);
}

#[test]
fn an_image_lies_at_2_mib_and_ends_where_its_bss_does() {
    let bytes = kernel(10_000, 50_000);
    let (loaded, memory) = load_bytes(&bytes);
    let entry = RAM_BASE + KERNEL_OFFSET;
    assert_eq!(
        loaded.unwrap(),
        Kernel {
            entry,
            start: entry,
            end: entry + 50_000,
            loaded: 10_000,
            form: Form::Plain,
        }
    );
    let mut got = vec![0; bytes.len()];
    memory.read_slice(&mut got, GuestAddress(entry)).unwrap();
    assert_eq!(got, bytes);
}

#[test]
fn a_gzipped_image_is_the_same_kernel() {
    let bytes = kernel(300_000, 400_000);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&bytes).unwrap();
    let (loaded, memory) = load_bytes(&packed.finish().unwrap());
    let mut got = vec![0; bytes.len()];
    memory
        .read_slice(&mut got, GuestAddress(loaded.unwrap().entry))
        .unwrap();
    assert_eq!(got, bytes);
}

#[test]
fn a_gzip_bomb_stops_at_the_end_of_ram() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&kernel(4096, 4096)).unwrap();
    packed.write_all(&vec![0; 64 << 20]).unwrap();
    let (loaded, _) = load_bytes(&packed.finish().unwrap());
    assert!(matches!(loaded, Err(KernelError::TooLarge { .. })));
}

#[test]
fn a_truncated_image_is_recognised_by_its_sections() {
    let bytes = kernel(100_000, 200_000);
    let (loaded, _) = load_bytes(&bytes[..60_000]);
    assert_eq!(
        loaded.unwrap_err().to_string(),
        "is truncated: 60000 bytes of 100000"
    );
}

#[test]
fn kernels_for_other_machines_are_named() {
    let mut arm = vec![0; 4096];
    arm[56..60].copy_from_slice(b"ARM\x64");
    let mut x86 = vec![0; 4096];
    x86[0x202..0x206].copy_from_slice(b"HdrS");
    let mut x86_elf = elf(&[], 0);
    x86_elf[18] = 62;
    for (bytes, text) in [
        (arm, "is an arm64 Image, not a riscv64 kernel"),
        (x86, "is an x86 bzImage, not a riscv64 kernel"),
        (
            x86_elf,
            "is an ELF file for another machine, not a riscv64 kernel",
        ),
        (
            vec![0; 4096],
            "is no riscv64 kernel: neither an Image (its header has no \"RSC\\x05\"), nor gzip, EFI zboot or ELF",
        ),
    ] {
        assert_eq!(load_bytes(&bytes).0.unwrap_err().to_string(), text);
    }
}

#[test]
fn a_kernel_larger_than_ram_is_refused_before_anything_is_written() {
    let (loaded, memory) = load_bytes(&kernel(10_000, 40 << 20));
    assert!(matches!(loaded, Err(KernelError::TooLarge { need, .. }) if need == 40 << 20));
    assert_eq!(
        memory
            .read_obj::<u64>(GuestAddress(RAM_BASE + KERNEL_OFFSET))
            .unwrap(),
        0
    );
}

#[test]
fn empty_short_and_missing_files_and_folders_are_refused() {
    assert!(matches!(load_bytes(b"").0, Err(KernelError::Short(0))));
    assert!(matches!(load_bytes(b"MZ").0, Err(KernelError::Short(2))));
    let memory = crate::memory::map(RAM).unwrap();
    assert!(matches!(
        load(Path::new("/nonexistent"), &memory, ROOM),
        Err(KernelError::Io(_))
    ));
    assert!(matches!(
        load(Path::new("/"), &memory, ROOM),
        Err(KernelError::NotAFile)
    ));
}

#[test]
fn headers_that_cannot_be_are_refused() {
    let mut no_size = kernel(4096, 4096);
    no_size[16..24].fill(0);
    let mut big_endian = kernel(4096, 4096);
    big_endian[24] = 1;
    let mut odd = kernel(4096, 4096);
    odd[8] = 1;
    for bytes in [no_size, big_endian, odd] {
        assert!(matches!(load_bytes(&bytes).0, Err(KernelError::Header(_))));
    }
}

/// A kernel inside an EFI program.
fn zboot(packing: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..8].copy_from_slice(b"MZ\0\0zimg");
    bytes[8..12].copy_from_slice(&4096u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    bytes[24..24 + packing.len()].copy_from_slice(packing);
    bytes.extend_from_slice(payload);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// An ELF file with these segments of `(virtual, physical, bytes in the file, bytes in memory)`.
fn elf(segments: &[(u64, u64, usize, u64)], entry: u64) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + 56 * segments.len()];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16] = 2;
    bytes[18] = 243;
    bytes[24..32].copy_from_slice(&entry.to_le_bytes());
    bytes[32] = 64;
    bytes[54] = 56;
    bytes[56] = u8::try_from(segments.len()).unwrap();
    for (index, &(virt, phys, in_file, in_memory)) in segments.iter().enumerate() {
        let (at, offset) = (HEADER + 56 * index, bytes.len() as u64);
        bytes[at] = 1;
        for (field, value) in [offset, virt, phys, in_file as u64, in_memory]
            .into_iter()
            .enumerate()
        {
            bytes[at + 8 + field * 8..at + 16 + field * 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes.extend(std::iter::repeat_n(0xc0 + u8::try_from(index).unwrap(), in_file));
    }
    bytes
}

#[test]
fn a_zboot_kernel_is_the_one_that_is_packed_in_it() {
    let bytes = kernel(300_000, 400_000);
    for file in [zboot(b"gzip", &gzip(&bytes)), zboot(b"zstd", &zstd(&bytes))] {
        let (loaded, memory) = load_bytes(&file);
        let loaded = loaded.unwrap();
        assert_eq!(
            (loaded.entry, loaded.loaded, loaded.form),
            (START, 300_000, Form::Packed)
        );
        let mut got = vec![0; bytes.len()];
        memory.read_slice(&mut got, GuestAddress(START)).unwrap();
        assert!(got == bytes);
    }
}

#[test]
fn zboot_kernels_that_cannot_be_unpacked_say_why() {
    let bytes = gzip(&kernel(4096, 4096));
    let text = |file: &[u8]| load_bytes(file).0.unwrap_err().to_string();
    assert_eq!(
        text(&zboot(b"lzma", &bytes)),
        "is packed with 'lzma'; gzip and zstd can be unpacked"
    );
    let whole = zboot(b"gzip", &bytes);
    let have = whole.len() - 1;
    assert_eq!(
        text(&whole[..have]),
        format!("is truncated: {have} bytes of {}", have + 1)
    );
    assert_eq!(text(&zboot(b"zstd", &bytes)), "cannot be read");
}

#[test]
fn a_zstd_bomb_stops_at_the_end_of_ram() {
    let bomb = [kernel(4096, 4096), vec![0; 64 << 20]].concat();
    let loaded = load_bytes(&zboot(b"zstd", &zstd(&bomb))).0;
    assert!(matches!(loaded, Err(KernelError::TooLarge { .. })));
}

#[test]
fn an_elf_file_goes_where_its_segments_say() {
    let segments = [(START, START, 100, 100), (START + 4096, START + 4096, 50, 9000)];
    let (loaded, memory) = load_bytes(&elf(&segments, START + 4));
    let expected = Kernel {
        entry: START + 4,
        start: START,
        end: START + 4096 + 9000,
        loaded: 4096 + 50,
        form: Form::Elf,
    };
    assert_eq!(loaded.unwrap(), expected);
    let byte = |at| memory.read_obj::<u8>(GuestAddress(at)).unwrap();
    assert_eq!(
        [byte(START), byte(START + 4096), byte(START + 4096 + 50)],
        [0xc0, 0xc1, 0]
    );
}

#[test]
fn a_vmlinux_linked_to_zero_is_entered_where_an_image_would_be() {
    let linked = 0xffff_ffff_8000_0000;
    let segments = [(linked, 0, 100, 100), (linked + 8192, 8192, 10, 20)];
    let loaded = load_bytes(&elf(&segments, linked)).0.unwrap();
    assert_eq!(
        (loaded.entry, loaded.start, loaded.end),
        (START, START, START + 8192 + 20)
    );
}

#[test]
fn elf_files_that_cannot_be_loaded_say_why() {
    let text = |segments: &[_], entry| load_bytes(&elf(segments, entry)).0.unwrap_err().to_string();
    let header = |why| format!("has a header that is not valid: {why}");
    assert_eq!(text(&[], START), header("it has nothing to load"));
    let overlap = [(START, START, 100, 5000), (START, START + 4096, 1, 1)];
    assert_eq!(text(&overlap, START), header("its segments overlap"));
    assert_eq!(
        text(&[(START, START, 10, 10)], 0),
        header("its entry lies in no segment")
    );
    let low = [(START, START, 10, 10), (START, u64::MAX - 4, 1, 10)];
    assert!(text(&low, START).starts_with("wants to be at 0xfffffffffffffffb, where it has no room"));
    let far = text(&[(START, START, 10, 64 << 20)], START);
    assert_eq!(
        far,
        "wants to be at 0x80200000, where it has no room: memory from 0x80200000 to 0x82000000 is free"
    );
    let mut cut = elf(&[(START, START, 1000, 1000)], START);
    cut.truncate(500);
    assert_eq!(
        load_bytes(&cut).0.unwrap_err().to_string(),
        "is truncated: 500 bytes of 1120"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_mutated_kernel_loads_inside_ram_or_is_refused(at in 0usize..512, value in any::<u8>(), more in proptest::collection::vec((0usize..96, any::<u8>()), 0..6), cut in 0usize..20_000) {
        let mut bytes = kernel(20_000, 30_000);
        bytes[at] = value;
        for (at, value) in more { bytes[at] = value; }
        bytes.truncate(20_000 - cut);
        prop_assert!(lies_in_room(&bytes));
    }

    #[test]
    fn a_mutated_elf_file_loads_inside_ram_or_is_refused(changes in proptest::collection::vec((0usize..176, any::<u8>()), 1..6), cut in 0usize..5000) {
        let mut bytes = elf(&[(START, START, 4096, 8192), (START + 8192, START + 8192, 700, 900)], START);
        for (at, value) in changes { bytes[at] = value; }
        bytes.truncate(bytes.len().saturating_sub(cut));
        prop_assert!(lies_in_room(&bytes));
    }

    #[test]
    fn a_mutated_zboot_file_loads_inside_ram_or_is_refused(with_zstd in any::<bool>(), changes in proptest::collection::vec((0usize..5000, any::<u8>()), 1..6), cut in 0usize..500) {
        let bytes = kernel(20_000, 30_000);
        let (name, payload) = if with_zstd { (b"zstd", zstd(&bytes)) } else { (b"gzip", gzip(&bytes)) };
        let mut bytes = zboot(name, &payload);
        let len = bytes.len();
        for (at, value) in changes { bytes[at % len] = value; }
        bytes.truncate(len.saturating_sub(cut));
        prop_assert!(lies_in_room(&bytes));
    }
}

/// Either refused, or a kernel whose entry and end are in the room for it.
fn lies_in_room(bytes: &[u8]) -> bool {
    load_bytes(bytes).0.map_or(true, |kernel| {
        kernel.entry >= ROOM.start && kernel.entry < kernel.end && kernel.end <= ROOM.end
    })
}
