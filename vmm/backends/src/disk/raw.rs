//! A disk that is a raw image: the guest's sector n is the file's bytes from 512·n on.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rvmm_devices::virtio::blk::{BlockBackend, Geometry};
use vm_memory::VolatileSlice;

use super::SECTOR;
use crate::transfer;

/// A file system's block size may be anything; as a disk's it must be one that drivers know.
const BLOCKS: std::ops::RangeInclusive<u64> = SECTOR..=4096;

/// Zeroes are written in pieces of this length, where no file system helps.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// A raw image.
#[derive(Debug)]
pub(super) struct RawDisk {
    file: File,
    size: u64,
}

// === impl RawDisk ===

impl RawDisk {
    pub(super) fn new(file: File, size: u64) -> Self {
        Self { file, size }
    }

    /// False where the file system cannot do it.
    fn allocate(&self, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<bool> {
        loop {
            match fallocate(&self.file, flags | FallocateFlags::KEEP_SIZE, offset, len) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                // Each of them is what some file system or device says when it does not know how.
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NODEV | Errno::NOSYS) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// What a file's blocks make of a disk's geometry.
pub(super) fn geometry(file: &File) -> Geometry {
    let block = file.metadata().map_or(SECTOR, |metadata| metadata.blksize());
    let block = block.clamp(*BLOCKS.start(), *BLOCKS.end());
    // A power of two between the bounds, which are.
    let block = u32::try_from(1u64 << block.ilog2()).unwrap_or(512);
    Geometry {
        physical_block: block,
        discard: block,
    }
}

impl BlockBackend for RawDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn geometry(&self) -> Geometry {
        geometry(&self.file)
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

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.allocate(FallocateFlags::PUNCH_HOLE, offset, len).map(|_| ())
    }

    fn write_zeroes(&mut self, mut offset: u64, mut len: u64, unmap: bool) -> io::Result<()> {
        // A hole is as good where space may be given back, and where it may not, better than nothing: it reads as zeroes.
        let ways = if unmap {
            [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE]
        } else {
            [FallocateFlags::ZERO_RANGE, FallocateFlags::PUNCH_HOLE]
        };
        for way in ways {
            if self.allocate(way, offset, len)? {
                return Ok(());
            }
        }
        while len > 0 {
            let piece = ZEROES.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            self.file.write_all_at(&ZEROES[..piece], offset)?;
            offset += piece as u64;
            len -= piece as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn disk(size: u64) -> (tempfile::NamedTempFile, RawDisk) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        let disk = RawDisk::new(file.reopen().unwrap(), size);
        (file, disk)
    }

    #[test]
    fn what_is_written_is_in_the_file_and_is_read_back() {
        let (file, mut disk) = disk(4096);
        assert_eq!(disk.size(), 4096);
        let mut sector = [7; 512];
        disk.write_at(512, &[VolatileSlice::from(&mut sector[..])])
            .unwrap();
        disk.flush().unwrap();
        let mut back = [0; 512];
        disk.read_at(512, &[VolatileSlice::from(&mut back[..])]).unwrap();
        assert_eq!(back, sector);
        assert_eq!(fs::read(file.path()).unwrap()[512..1024], sector);
    }

    #[test]
    fn zeroes_reach_exactly_the_bytes_that_were_named_and_the_size_stays() {
        for unmap in [false, true] {
            let (file, mut disk) = disk(1 << 20);
            file.as_file().write_all_at(&vec![7; 1 << 20], 0).unwrap();
            disk.write_zeroes(512, 300 << 10, unmap).unwrap();
            disk.write_zeroes((1 << 20) - 512, 512, unmap).unwrap();
            let mut wanted = vec![7; 1 << 20];
            wanted[512..512 + (300 << 10)].fill(0);
            wanted[(1 << 20) - 512..].fill(0);
            assert!(fs::read(file.path()).unwrap() == wanted, "unmap: {unmap}");
        }
    }

    #[test]
    fn a_discard_keeps_the_size_and_what_lies_around() {
        let (file, mut disk) = disk(1 << 20);
        file.as_file().write_all_at(&vec![7; 1 << 20], 0).unwrap();
        disk.discard(64 << 10, 512 << 10).unwrap();
        let bytes = fs::read(file.path()).unwrap();
        assert_eq!(bytes.len(), 1 << 20);
        assert!(bytes[..64 << 10].iter().all(|byte| *byte == 7));
        assert!(bytes[(64 + 512) << 10..].iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_block_is_a_power_of_two_that_drivers_know() {
        let (_file, disk) = disk(512);
        let block = disk.geometry().physical_block;
        assert!(
            block.is_power_of_two() && BLOCKS.contains(&block.into()),
            "{block}"
        );
    }
}
