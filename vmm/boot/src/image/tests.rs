//! Kernels that can be booted, and all those that cannot.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use rvmm_spec::MemorySize;

use super::*;
use crate::RAM_BASE;

const RAM: MemorySize = MemorySize::from_mib(32);
const LIMIT: u64 = RAM_BASE + (32 << 20);

/// A kernel with a PE section table that says how long its file is.
fn kernel(file_len: usize, image_size: u64) -> Vec<u8> {
    let mut bytes = vec![0xa5; file_len];
    bytes[..HEADER].fill(0);
    bytes[..2].copy_from_slice(b"MZ");
    bytes[8..16].copy_from_slice(&0x20_0000u64.to_le_bytes());
    bytes[16..24].copy_from_slice(&image_size.to_le_bytes());
    bytes[48..56].copy_from_slice(b"RISCV\0\0\0");
    bytes[56..60].copy_from_slice(MAGIC2);
    bytes[60..64].copy_from_slice(&64u32.to_le_bytes());
    bytes[64..68].copy_from_slice(b"PE\0\0");
    bytes[70..72].copy_from_slice(&1u16.to_le_bytes());
    bytes[84..86].copy_from_slice(&0u16.to_le_bytes());
    bytes[88 + 16..88 + 20].copy_from_slice(&u32::try_from(file_len).unwrap().to_le_bytes());
    bytes[88 + 20..88 + 24].copy_from_slice(&0u32.to_le_bytes());
    bytes
}

fn load_bytes(bytes: &[u8]) -> (Result<Kernel, ImageError>, GuestMemoryMmap) {
    let memory = crate::memory::map(RAM).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    (load(file.path(), &memory, RAM_BASE, LIMIT), memory)
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
            end: entry + 50_000,
            loaded: 10_000
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
    assert!(matches!(loaded, Err(ImageError::TooLarge { .. })));
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
    let mut zboot = vec![0; 4096];
    zboot[4..8].copy_from_slice(b"zimg");
    for (bytes, text) in [
        (arm, "is an arm64 Image, not a riscv64 Image"),
        (x86, "is an x86 bzImage, not a riscv64 Image"),
        (zboot, "is an EFI zboot image, not a riscv64 Image"),
        (b"\x7fELF....".to_vec(), "is an ELF file, not a riscv64 Image"),
    ] {
        assert_eq!(load_bytes(&bytes).0.unwrap_err().to_string(), text);
    }
}

#[test]
fn a_kernel_larger_than_ram_is_refused_before_anything_is_written() {
    let (loaded, memory) = load_bytes(&kernel(10_000, 40 << 20));
    assert!(matches!(loaded, Err(ImageError::TooLarge { need, .. }) if need == 40 << 20));
    assert_eq!(
        memory
            .read_obj::<u64>(GuestAddress(RAM_BASE + KERNEL_OFFSET))
            .unwrap(),
        0
    );
}

#[test]
fn empty_short_and_missing_files_and_folders_are_refused() {
    assert!(matches!(load_bytes(b"").0, Err(ImageError::Short(0))));
    assert!(matches!(load_bytes(b"MZ").0, Err(ImageError::Short(2))));
    let memory = crate::memory::map(RAM).unwrap();
    assert!(matches!(
        load(Path::new("/nonexistent"), &memory, RAM_BASE, LIMIT),
        Err(ImageError::Io(_))
    ));
    assert!(matches!(
        load(Path::new("/"), &memory, RAM_BASE, LIMIT),
        Err(ImageError::NotAFile)
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
        assert!(matches!(load_bytes(&bytes).0, Err(ImageError::Header(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_mutated_kernel_loads_inside_ram_or_is_refused(at in 0usize..512, value in any::<u8>(), more in proptest::collection::vec((0usize..96, any::<u8>()), 0..6), cut in 0usize..20_000) {
        let mut bytes = kernel(20_000, 30_000);
        bytes[at] = value;
        for (at, value) in more { bytes[at] = value; }
        bytes.truncate(20_000 - cut);
        if let (Ok(kernel), _) = load_bytes(&bytes) {
            prop_assert!(kernel.entry >= RAM_BASE + KERNEL_OFFSET && kernel.entry < kernel.end && kernel.end <= LIMIT);
        }
    }
}
