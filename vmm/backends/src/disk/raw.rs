//! A disk that is a raw image: the guest's sector n is the file's bytes from 512·n on.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rvmm_devices::virtio::blk::BlockBackend;
use vm_memory::VolatileSlice;

use super::lock::lock;
use crate::transfer;

/// Smallest disk in bytes: one sector.
const SECTOR: u64 = 512;

/// A raw image, locked for as long as this lives.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    size: u64,
}

/// The image cannot be used as a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Missing, not readable, not writable.
    #[error("disk '{0}' cannot be opened")]
    Open(PathBuf, #[source] io::Error),
    /// A folder, a pipe, a terminal …
    #[error("disk '{0}' is neither a file nor a block device")]
    Kind(PathBuf),
    /// Nothing in it, not even a sector.
    #[error("disk '{0}' has {1} bytes, less than one sector of {SECTOR}")]
    Size(PathBuf, u64),
    /// Another machine, QEMU or `qemu-img` has it.
    #[error("disk '{0}' is in use by another process{how}", how = if *.1 { ", which writes it" } else { "; only read-only disks can be shared" })]
    InUse(PathBuf, bool),
    /// Without a lock, two machines might write it.
    #[error("disk '{0}' cannot be locked")]
    Lock(PathBuf, #[source] io::Error),
}

// === impl RawDisk ===

impl RawDisk {
    /// Opens an image and locks it.
    ///
    /// # Errors
    /// [`DiskError`], which names the image.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, DiskError> {
        let failed = |error| DiskError::Open(path.to_owned(), error);
        // Non-blocking: opening a pipe would otherwise wait for its other end. Files and block devices do not care.
        let mut file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| match error.kind() {
                io::ErrorKind::IsADirectory => DiskError::Kind(path.to_owned()),
                _ => failed(error),
            })?;
        let kind = file.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::Kind(path.to_owned()));
        }
        match lock(&file, read_only) {
            Ok(true) => {}
            Ok(false) => return Err(DiskError::InUse(path.to_owned(), read_only)),
            Err(error) => return Err(DiskError::Lock(path.to_owned(), error)),
        }
        // A block device tells its size only this way.
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if size < SECTOR {
            return Err(DiskError::Size(path.to_owned(), size));
        }
        Ok(Self { file, size })
    }
}

impl BlockBackend for RawDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        transfer::read_at(self.file.as_fd(), offset, buffers)
    }

    fn write_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        transfer::write_at(self.file.as_fd(), offset, buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn image(size: u64) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        File::create(&path).unwrap().set_len(size).unwrap();
        (folder, path)
    }

    #[test]
    fn what_is_written_is_in_the_file_and_is_read_back() {
        let (_folder, path) = image(4096);
        let mut disk = RawDisk::open(&path, false).unwrap();
        assert_eq!(disk.size(), 4096);
        let mut sector = [7; 512];
        disk.write_at(512, &[VolatileSlice::from(&mut sector[..])])
            .unwrap();
        disk.flush().unwrap();
        let mut back = [0; 512];
        disk.read_at(512, &[VolatileSlice::from(&mut back[..])]).unwrap();
        assert_eq!(back, sector);
        assert_eq!(fs::read(&path).unwrap()[512..1024], sector);
    }

    #[test]
    fn an_image_has_one_writer_or_many_readers() {
        let (_folder, path) = image(512);
        let writer = RawDisk::open(&path, false).unwrap();
        assert!(matches!(
            RawDisk::open(&path, false),
            Err(DiskError::InUse(_, false))
        ));
        assert!(matches!(
            RawDisk::open(&path, true),
            Err(DiskError::InUse(_, true))
        ));
        drop(writer);
        let _readers = (
            RawDisk::open(&path, true).unwrap(),
            RawDisk::open(&path, true).unwrap(),
        );
        assert!(matches!(RawDisk::open(&path, false), Err(DiskError::InUse(..))));
    }

    #[test]
    fn a_writer_of_qemus_keeps_readers_out() {
        let (_folder, path) = image(512);
        let qemu = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let holds = |byte| super::super::lock::shared(&qemu, byte).unwrap();
        assert!([100, 101, 201, 203].into_iter().all(holds));
        assert!(matches!(RawDisk::open(&path, true), Err(DiskError::InUse(..))));
    }

    #[test]
    fn what_is_no_disk_is_named_in_the_error() {
        let (folder, path) = image(100);
        let text = |path: &Path| RawDisk::open(path, false).unwrap_err().to_string();
        let (folder, missing) = (folder.path(), folder.path().join("none"));
        assert_eq!(
            text(folder),
            format!("disk '{}' is neither a file nor a block device", folder.display())
        );
        assert_eq!(
            text(&missing),
            format!("disk '{}' cannot be opened", missing.display())
        );
        assert_eq!(
            text(&path),
            format!(
                "disk '{}' has 100 bytes, less than one sector of 512",
                path.display()
            )
        );
        let device = Path::new("/dev/null");
        assert_eq!(
            text(device),
            "disk '/dev/null' is neither a file nor a block device"
        );
    }

    #[test]
    fn a_read_only_disk_cannot_be_written() {
        let (_folder, path) = image(512);
        let mut disk = RawDisk::open(&path, true).unwrap();
        let mut sector = [7; 512];
        assert!(disk.write_at(0, &[VolatileSlice::from(&mut sector[..])]).is_err());
    }
}
