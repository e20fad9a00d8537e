//! The file under a disk: opened without waiting for anything, looked at, locked.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use rustix::fs::OFlags;
use rvmm_spec::Disk;

use super::lock::lock;
use super::{DiskError, SECTOR};

/// An image, locked for as long as the file is open.
pub(super) struct Opened {
    pub(super) file: File,
    /// Bytes in the file or on the device.
    pub(super) size: u64,
    pub(super) is_device: bool,
}

/// Opens the image of a disk, and leaves it as it is.
pub(super) fn open_only(disk: &Disk) -> Result<File, DiskError> {
    let path = &disk.path;
    // Non-blocking: opening a pipe would otherwise wait for its other end. Files and block devices do not care.
    let direct = if disk.direct { libc::O_DIRECT } else { 0 };
    OpenOptions::new()
        .read(true)
        .write(!disk.read_only)
        .custom_flags(libc::O_NONBLOCK | direct)
        .open(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::IsADirectory => DiskError::Kind(path.clone()),
            io::ErrorKind::InvalidInput if disk.direct => DiskError::Direct(path.clone()),
            _ => DiskError::Open(path.clone(), error),
        })
}

/// Looks at an open image, and locks it.
pub(super) fn take(disk: &Disk, mut file: File) -> Result<Opened, DiskError> {
    let (path, read_only) = (&disk.path, disk.read_only);
    let failed = |error| DiskError::Open(path.clone(), error);
    let kind = file.metadata().map_err(failed)?.file_type();
    let is_device = kind.is_block_device();
    if !kind.is_file() && !is_device {
        return Err(DiskError::Kind(path.clone()));
    }
    match lock(&file, read_only) {
        Ok(true) => {}
        Ok(false) => return Err(DiskError::InUse(path.clone(), read_only)),
        Err(error) => return Err(DiskError::Lock(path.clone(), error)),
    }
    // A block device tells its size only this way.
    let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
    if size < SECTOR {
        return Err(DiskError::Size(path.clone(), size));
    }
    Ok(Opened {
        file,
        size,
        is_device,
    })
}

/// Opens, looks at and locks an image.
pub(super) fn open(disk: &Disk) -> Result<Opened, DiskError> {
    take(disk, open_only(disk)?)
}

/// Whether a file that somebody else opened is open for what this disk needs, and in the way that it asks for.
pub(super) fn is_open_for(disk: &Disk, file: &File) -> io::Result<bool> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    let wanted = if disk.read_only {
        OFlags::RDONLY
    } else {
        OFlags::RDWR
    };
    Ok(flags & OFlags::RWMODE == wanted && flags.contains(OFlags::DIRECT) == disk.direct)
}
