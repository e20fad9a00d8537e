//! Files: kernels of each kind, initial RAM disks, firmware, device trees, qcow2 images.

use std::io::Write;
use std::path::Path;

use rvmm_boot::dtb::{self, overlay};
use rvmm_boot::{Loaded, RAM_BASE};
use rvmm_spec::{Boot, Disk, DiskFormat, Firmware, MemorySize};
use tempfile::NamedTempFile;
use vm_memory::{GuestAddress, GuestMemoryMmap};

const RAM_MIB: u64 = 32;
/// A whole kernel's header, for targets that are about what comes after it.
const KERNEL: &[u8] = include_bytes!("../corpus/kernel-image/plain");

fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file can be made");
    file.write_all(content)
        .expect("a temporary file takes a few bytes");
    file
}

/// Loads what is to be booted; whatever was loaded lies in RAM, one behind the other.
fn load(boot: &Boot) {
    let len = usize::try_from(RAM_MIB << 20).expect("a few megabytes are a size");
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM_BASE), len)]).expect("32 MiB can be mapped");
    if let Ok(loaded) = rvmm_boot::load(boot, &ram, MemorySize::from_mib(RAM_MIB)) {
        assert_in_ram(&loaded);
    }
}

fn assert_in_ram(loaded: &Loaded) {
    let end = RAM_BASE + (RAM_MIB << 20);
    assert!(loaded.device_tree < end, "a device tree outside RAM: {loaded:?}");
    if let Some(kernel) = loaded.in_ram() {
        assert!(
            (RAM_BASE..end).contains(&kernel.entry) && kernel.end <= end,
            "a kernel outside RAM: {loaded:?}"
        );
    }
    if let Some((first, last)) = loaded.initrd {
        assert!(
            RAM_BASE <= first && first < last && last <= end,
            "an initrd outside RAM: {loaded:?}"
        );
    }
}

fn kernel(content: &[u8]) {
    let file = file(content);
    load(&Boot::new(file.path()));
}

/// A kernel's file, whatever it is.
pub fn image(content: &[u8]) {
    kernel(content);
}

/// One that is packed by gzip.
pub fn gzip(content: &[u8]) {
    kernel(&[&[0x1f, 0x8b], content].concat());
}

/// One that is an EFI zboot image.
pub fn zboot(content: &[u8]) {
    kernel(&[b"MZ\0\0zimg", content].concat());
}

/// One that is an ELF file for riscv64.
pub fn elf(content: &[u8]) {
    let identity = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0\x01\0\0\0";
    kernel(&[identity, content].concat());
}

/// An initial RAM disk behind a kernel.
pub fn initrd(content: &[u8]) {
    let (kernel, initrd) = (file(KERNEL), file(content));
    let mut boot = Boot::new(kernel.path());
    boot.initrd = Some(initrd.path().to_owned());
    load(&boot);
}

/// A firmware's file.
pub fn firmware(content: &[u8]) {
    let file = file(content);
    load(&Boot::firmware(Firmware {
        image: file.path().to_owned(),
        vars: None,
    }));
}

/// A device tree: what was taken is what is written again.
pub fn device_tree(blob: &[u8]) {
    if let Ok(tree) = dtb::parse(blob)
        && let Ok(again) = dtb::write(&tree)
    {
        assert!(dtb::parse(&again).is_ok(), "what we write, we do not read");
    }
}

/// A device-tree overlay on a small tree.
pub fn device_tree_overlay(blob: &[u8]) {
    let mut base = dtb::Node::default();
    base.child_or_new("soc").set("phandle", vec![0, 0, 0, 1]);
    overlay::label(&mut base);
    overlay::apply(&mut base, blob).ok();
}

fn open(path: &Path) -> Option<Box<dyn rvmm_devices::virtio::blk::BlockBackend>> {
    let mut disk = Disk::new(path);
    disk.format = DiskFormat::Qcow2;
    rvmm_backends::disk::open(&disk).ok()
}

/// A qcow2 image: opened, then its first and last sector.
pub fn qcow2(content: &[u8]) {
    let file = file(content);
    if let Some(mut image) = open(file.path()) {
        let mut sector = [0; 512];
        for offset in [0, image.size().saturating_sub(512)] {
            let slice = vm_memory::VolatileSlice::from(&mut sector[..]);
            // A table that leads nowhere is an error, and no more than that.
            image.read_at(offset, &[slice]).ok();
            image.write_at(offset, &[slice]).ok();
        }
        image.flush().ok();
    }
}
