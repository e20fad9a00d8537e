//! Disks on files and block devices of the host.
//!
//! ```text
//!   spec::Disk ─► file::open: no pipe, no folder, locked as QEMU locks ─┬─ raw ────────────────► RawDisk: preadv, fallocate
//!                                                                       ├─ raw, direct ─┐
//!                                                                       └─ qcow2 ─► header checked ─► ImageDisk: imago
//!                                                  its base, if it has one: read-only, in the same way ────┘
//! ```
//!
//! What a file is was said by who asked for the disk, and is never guessed.

mod file;
mod image;
pub(crate) mod lock;
mod qcow2;
mod raw;
mod timer;

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rvmm_devices::virtio::blk::BlockBackend;
use rvmm_spec::{Disk, DiskFormat};

use file::Opened;
use image::{ImageDisk, Layer};
pub use qcow2::Qcow2Error;
use raw::RawDisk;
pub use timer::Timer;

/// Smallest disk in bytes: one sector.
const SECTOR: u64 = 512;

/// The image cannot be used as a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Missing, not readable, not writable.
    #[error("disk '{0}' cannot be opened")]
    Open(PathBuf, #[source] io::Error),
    /// The file system only knows its cache.
    #[error("disk '{0}' cannot be opened for direct I/O: its file system has none")]
    Direct(PathBuf),
    /// A folder, a pipe, a terminal …
    #[error("disk '{0}' is neither a file nor a block device")]
    Kind(PathBuf),
    /// Nothing in it, not even a sector.
    #[error("disk '{0}' has {1} bytes, less than one sector of {SECTOR}")]
    Size(PathBuf, u64),
    /// Another machine, QEMU or `qemu-img` has it.
    #[error("disk '{0}' is in use by another process{how}", how = if *.1 { ", which writes it" } else { "; only read-only disks can be shared" })]
    InUse(PathBuf, bool),
    /// A descriptor that came from elsewhere, for something else.
    #[error("disk '{0}' was not opened as it is asked for: for reading{how}, and past the page cache if that is wished", how = if *.1 { " only" } else { " and writing" })]
    Opened(PathBuf, bool),
    /// Without a lock, two machines might write it.
    #[error("disk '{0}' cannot be locked")]
    Lock(PathBuf, #[source] io::Error),
    /// Not the image that it should be.
    #[error("disk '{0}' cannot be used as qcow2")]
    Qcow2(PathBuf, #[source] Qcow2Error),
}

/// Opens and locks a disk's image.
///
/// # Errors
/// [`DiskError`], which names the image.
pub fn open(disk: &Disk) -> Result<Box<dyn BlockBackend>, DiskError> {
    made_of(disk, file::open(disk)?)
}

/// Opens a disk's image for another process: as [`open_from`] there wants it.
///
/// # Errors
/// [`DiskError`], which names the image.
pub fn hand_over(disk: &Disk) -> Result<File, DiskError> {
    file::open_only(disk)
}

/// The disk in an image that another process opened, locked as by [`open`]. The disk's path is only its name.
///
/// # Errors
/// [`DiskError`], which names the image.
pub fn open_from(disk: &Disk, file: File) -> Result<Box<dyn BlockBackend>, DiskError> {
    made_of(disk, taken(disk, file)?)
}

/// Finds every fault that [`open_from`] would find, as [`examine`] does. The image stays locked for as long as any
/// copy of the descriptor is open.
///
/// # Errors
/// [`DiskError`], which names the image.
pub fn examine_from(disk: &Disk, file: File) -> Result<bool, DiskError> {
    looked_at(disk, &taken(disk, file)?)
}

fn taken(disk: &Disk, file: File) -> Result<Opened, DiskError> {
    match file::is_open_for(disk, &file) {
        Ok(true) => file::take(disk, file),
        Ok(false) => Err(DiskError::Opened(disk.path.clone(), disk.read_only)),
        Err(error) => Err(DiskError::Open(disk.path.clone(), error)),
    }
}

fn made_of(disk: &Disk, opened: Opened) -> Result<Box<dyn BlockBackend>, DiskError> {
    let failed = |error| DiskError::Open(disk.path.clone(), error);
    Ok(match disk.format {
        DiskFormat::Raw if disk.direct => {
            Box::new(ImageDisk::raw(opened.file, !disk.read_only).map_err(failed)?)
        }
        DiskFormat::Raw => Box::new(RawDisk::new(opened.file, opened.size)),
        DiskFormat::Qcow2 => {
            let base = base_of(disk).map(|base| layer(&base)).transpose()?;
            let image = qcow2::check(&opened.file, opened.size)
                .and_then(|()| ImageDisk::qcow2(opened.file, !disk.read_only, disk.direct, base));
            let image = image.map_err(|error| DiskError::Qcow2(disk.path.clone(), error))?;
            if image.size() < SECTOR {
                return Err(DiskError::Size(disk.path.clone(), image.size()));
            }
            Box::new(image)
        }
    })
}

/// The image under a disk's own, as a disk that is only read.
fn base_of(disk: &Disk) -> Option<Disk> {
    disk.base.as_ref().map(|base| Disk {
        format: base.format,
        read_only: true,
        direct: disk.direct,
        ..Disk::new(&base.path)
    })
}

/// An image that is read through the one above it.
fn layer(base: &Disk) -> Result<Layer, DiskError> {
    let opened = file::open(base)?;
    match base.format {
        DiskFormat::Raw => image::raw_layer(opened.file, false, base.direct)
            .map_err(|error| DiskError::Open(base.path.clone(), error)),
        DiskFormat::Qcow2 => qcow2::check(&opened.file, opened.size)
            .and_then(|()| image::qcow2_layer(opened.file, false, base.direct, None))
            .map_err(|error| DiskError::Qcow2(base.path.clone(), error)),
    }
}

/// Which of a disk's images are block devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Devices {
    /// The disk's own.
    pub image: bool,
    /// Its base.
    pub base: bool,
}

/// Finds every fault that [`open`] would find in a disk's image before it is used, changes nothing, and says which of its
/// images are block devices.
///
/// # Errors
/// [`DiskError`], which names the image.
pub fn examine(disk: &Disk) -> Result<Devices, DiskError> {
    let image = looked_at(disk, &file::open(disk)?)?;
    let base = base_of(disk).map(|base| looked_at(&base, &file::open(&base)?));
    Ok(Devices {
        image,
        base: base.transpose()?.unwrap_or(false),
    })
}

fn looked_at(disk: &Disk, opened: &Opened) -> Result<bool, DiskError> {
    if disk.format == DiskFormat::Qcow2 {
        qcow2::check(&opened.file, opened.size)
            .map_err(|error| DiskError::Qcow2(disk.path.clone(), error))?;
    }
    Ok(opened.is_device)
}

#[cfg(test)]
mod tests;
