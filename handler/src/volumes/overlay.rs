//! An empty qcow2 image: what a machine writes onto a disk that it shares with others.
//!
//! ```text
//!   cluster 0  header │ 1  refcount table │ 2  refcount block │ 3 …  L1 table, a hole: nothing was written yet
//! ```
//!
//! It names no backing file. What lies under it stands in the machine's spec alone, where no guest and no image can change
//! it. Most of it are holes, so that a machine's disk takes a few blocks until its guest writes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::images::qcow2::MAGIC;

/// Bytes of a cluster: QEMU's default.
const CLUSTER: u64 = 64 << 10;

/// Bytes of the disk that an entry of the L1 table stands for: a table's entries times a cluster.
const PER_ENTRY: u64 = (CLUSTER / 8) * CLUSTER;

/// Bytes of version 3's header.
const HEADER: u32 = 104;

/// Refcounts have two bytes: 16 bits are 2 to this.
const REFCOUNT_ORDER: u32 = 4;

/// Largest disk in bytes, 1 PiB: one refcount block then still counts all clusters of the L1 table.
pub const MAX_SIZE: u64 = 1 << 50;

/// Makes an empty file an image of a disk of this many bytes, at most [`MAX_SIZE`].
///
/// # Errors
/// The file system's; that the disk is too large.
pub fn write(file: &File, size: u64) -> io::Result<()> {
    if size > MAX_SIZE {
        return Err(io::Error::other("a disk of more than 1 PiB"));
    }
    let entries = size.div_ceil(PER_ENTRY).max(1);
    let clusters = 3 + (entries * 8).div_ceil(CLUSTER);
    let mut header = vec![0; HEADER as usize];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC);
    put(4, &3_u32.to_be_bytes());
    put(20, &CLUSTER.trailing_zeros().to_be_bytes());
    put(24, &size.to_be_bytes());
    put(
        36,
        &u32::try_from(entries).map_err(io::Error::other)?.to_be_bytes(),
    );
    put(40, &(3 * CLUSTER).to_be_bytes());
    put(48, &CLUSTER.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(96, &REFCOUNT_ORDER.to_be_bytes());
    put(100, &HEADER.to_be_bytes());
    file.set_len(clusters * CLUSTER)?;
    file.write_all_at(&header, 0)?;
    file.write_all_at(&(2 * CLUSTER).to_be_bytes(), CLUSTER)?;
    let used: Vec<u8> = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    file.write_all_at(&used, 2 * CLUSTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::qcow2;
    use std::os::unix::fs::MetadataExt;

    fn overlay(size: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        write(&file, size).unwrap();
        file
    }

    #[test]
    fn an_overlay_is_a_sound_image_of_the_disks_size() {
        for size in [512, 8 << 20, PER_ENTRY + 512, MAX_SIZE] {
            let file = overlay(size);
            qcow2::check(&file).unwrap();
            assert_eq!(qcow2::size(&file).unwrap(), size);
        }
    }

    #[test]
    fn an_overlay_takes_a_few_blocks_however_large_its_disk_is() {
        assert!(overlay(1 << 40).metadata().unwrap().blocks() * 512 <= 2 * CLUSTER);
    }

    #[test]
    fn a_disk_that_its_tables_cannot_hold_is_refused() {
        assert!(write(&tempfile::tempfile().unwrap(), MAX_SIZE + 1).is_err());
    }
}
