//! Files: kernels, initial RAM disks, qcow2 images.

use std::io::Write;

use rvmm_boot::{RAM_BASE, image, initrd};
use rvmm_spec::{Disk, DiskFormat};
use tempfile::NamedTempFile;
use vm_memory::{GuestAddress, GuestMemoryMmap};

const RAM_LEN: usize = 8 << 20;

fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file can be made");
    file.write_all(content)
        .expect("a temporary file takes a few bytes");
    file
}

fn ram() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM_BASE), RAM_LEN)]).expect("8 MiB can be mapped")
}

/// A kernel's header.
pub fn header(bytes: &[u8]) {
    if let Ok(header) = image::parse(bytes) {
        assert!(header.image_size > 0, "a kernel of no bytes");
    }
}

fn load(content: &[u8]) {
    let limit = RAM_BASE + RAM_LEN as u64;
    let file = file(content);
    if let Ok(kernel) = image::load(file.path(), &ram(), RAM_BASE, limit) {
        assert!(
            RAM_BASE <= kernel.entry && kernel.entry < kernel.end && kernel.end <= limit,
            "a kernel outside its room: {kernel:?}"
        );
    }
}

/// A kernel's file.
pub fn image(content: &[u8]) {
    load(content);
}

/// A kernel's file that is packed, in one way or another.
pub fn gzip(content: &[u8]) {
    load(&[&[0x1f, 0x8b], content].concat());
}

/// An initial RAM disk's file, and the room that there is for it.
pub fn initrd(content: &[u8]) {
    let (room, content) = content.split_at(content.len().min(2));
    let room = room.iter().fold(0, |room, &byte| room << 8 | u64::from(byte));
    let ceiling = RAM_BASE + (room << 7);
    let file = file(content);
    if let Ok((start, end)) = initrd::load(file.path(), &ram(), RAM_BASE, ceiling) {
        assert!(
            RAM_BASE <= start && start < end && end <= ceiling,
            "an initrd outside its room"
        );
    }
}

/// A qcow2 image: opened, then its first and last sector.
pub fn qcow2(content: &[u8]) {
    let file = file(content);
    let mut disk = Disk::new(file.path());
    disk.format = DiskFormat::Qcow2;
    if let Ok(mut image) = rvmm_backends::disk::open(&disk) {
        let mut sector = [0; 512];
        for offset in [0, image.size().saturating_sub(512)] {
            let slice = vm_memory::VolatileSlice::from(&mut sector[..]);
            // A table that leads nowhere is an error, and no more than that.
            image.read_at(offset, &[slice.clone()]).ok();
            image.write_at(offset, &[slice]).ok();
        }
        image.flush().ok();
    }
}
