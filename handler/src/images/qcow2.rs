//! Looks at a qcow2 disk that came out of an image, before a machine gets it: that it is whole, and stands on no other file
//! (QEMU, docs/interop/qcow2.rst).
//!
//! Only where things lie is read, never what the guest's blocks hold. What an image names as its backing or data file would be a
//! file of the node, so such an image is refused and the name is not even read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How a qcow2 image begins.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

/// The header as version 2 has it, and as version 3 does.
const HEADER_2: usize = 72;
const HEADER_3: usize = 104;

/// Cluster sizes that QEMU takes: 512 bytes to 2 MiB.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// Most entries of the first table, as in QEMU: 32 MiB of them.
const MAX_L1: u64 = 4 << 20;

/// Incompatible features: what they make of the image.
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const EXTENDED_L2: u64 = 1 << 4;

/// Where an entry of a table points, and that it points to compressed data.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;

/// Not a disk for a guest.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// The disk that it lies on.
    #[error("the qcow2 disk cannot be read")]
    Read(#[source] io::Error),
    /// The file ends before what it points to.
    #[error("the qcow2 disk is truncated")]
    Truncated,
    /// It is only what differs from another file.
    #[error("the qcow2 disk has a backing file; an image must hold all of its disk")]
    Backing,
    /// Its data are another file.
    #[error("the qcow2 disk has an external data file; an image must hold all of its disk")]
    External,
    /// Its guest's blocks are encrypted.
    #[error("the qcow2 disk is encrypted")]
    Encrypted,
    /// It says itself that it is broken, or is.
    #[error("the qcow2 disk is corrupt")]
    Corrupt,
    /// Version 1, or one to come.
    #[error("the qcow2 disk is of version {0}; 2 and 3 are supported")]
    Version(u32),
}

/// What of a header is needed.
struct Header {
    cluster_bits: u32,
    l1_entries: u64,
    l1_offset: u64,
    extended: bool,
}

/// Whether a file is a qcow2 disk.
///
/// # Errors
/// It cannot be read.
pub fn is_one(file: &File) -> io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    match file.read_exact_at(&mut magic, 0) {
        Ok(()) => Ok(magic == MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Checks a file that [`is_one`].
///
/// # Errors
/// Any [`Qcow2Error`].
pub fn check(file: &File) -> Result<(), Qcow2Error> {
    let length = file.metadata().map_err(Qcow2Error::Read)?.len();
    let header = Header::read(file)?;
    let cluster = 1_u64 << header.cluster_bits;
    // Tables do not share clusters, so a sound image has no more of them.
    let mut tables_left = length / cluster + 1;
    let mut table = vec![0; usize::try_from(cluster).map_err(|_| Qcow2Error::Corrupt)?];
    for number in 0..header.l1_entries {
        let at = header.l1_offset.checked_add(number * 8);
        let mut entry = [0; 8];
        read(file, &mut entry, at.ok_or(Qcow2Error::Corrupt)?)?;
        let offset = u64::from_be_bytes(entry) & OFFSET;
        if offset == 0 {
            continue;
        }
        tables_left = tables_left.checked_sub(1).ok_or(Qcow2Error::Corrupt)?;
        read(file, &mut table, offset)?;
        header.check_table(&table, length)?;
    }
    Ok(())
}

/// Bytes of the disk in a file that was checked.
///
/// # Errors
/// [`Qcow2Error::Read`], [`Qcow2Error::Truncated`].
pub fn size(file: &File) -> Result<u64, Qcow2Error> {
    let mut bytes = [0; 8];
    read(file, &mut bytes, 24)?;
    Ok(u64::from_be_bytes(bytes))
}

// === impl Header ===

impl Header {
    fn read(file: &File) -> Result<Self, Qcow2Error> {
        let mut bytes = [0; HEADER_3];
        read(file, &mut bytes[..HEADER_2], 0)?;
        let word = |bytes: &[u8; HEADER_3], at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_be_bytes(word)
        };
        let long = |bytes: &[u8; HEADER_3], at: usize| {
            u64::from(word(bytes, at)) << 32 | u64::from(word(bytes, at + 4))
        };
        let features = match word(&bytes, 4) {
            2 => 0,
            3 => {
                read(file, &mut bytes, 0)?;
                long(&bytes, 72)
            }
            other => return Err(Qcow2Error::Version(other)),
        };
        match () {
            () if long(&bytes, 8) != 0 => Err(Qcow2Error::Backing),
            () if features & EXTERNAL_DATA != 0 => Err(Qcow2Error::External),
            () if word(&bytes, 32) != 0 => Err(Qcow2Error::Encrypted),
            () if features & CORRUPT != 0 => Err(Qcow2Error::Corrupt),
            () if !CLUSTER_BITS.contains(&word(&bytes, 20)) => Err(Qcow2Error::Corrupt),
            () if u64::from(word(&bytes, 36)) > MAX_L1 => Err(Qcow2Error::Corrupt),
            () => Ok(Self {
                cluster_bits: word(&bytes, 20),
                l1_entries: word(&bytes, 36).into(),
                l1_offset: long(&bytes, 40),
                extended: features & EXTENDED_L2 != 0,
            }),
        }
    }

    /// Everything that a second table points to has to begin in the file; its last cluster may end with it.
    fn check_table(&self, table: &[u8], length: u64) -> Result<(), Qcow2Error> {
        let size = if self.extended { 16 } else { 8 };
        for entry in table.chunks_exact(size) {
            let entry = entry.first_chunk().map_or(0, |entry| u64::from_be_bytes(*entry));
            let offset = if entry & COMPRESSED != 0 {
                // The bits above are the compressed size.
                entry & ((1 << (62 - (self.cluster_bits - 8))) - 1)
            } else {
                entry & OFFSET
            };
            if offset != 0 && offset >= length {
                return Err(Qcow2Error::Truncated);
            }
        }
        Ok(())
    }
}

fn read(file: &File, into: &mut [u8], at: u64) -> Result<(), Qcow2Error> {
    file.read_exact_at(into, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Qcow2Error::Truncated,
        // An offset that no file has.
        io::ErrorKind::InvalidInput => Qcow2Error::Corrupt,
        _ => Qcow2Error::Read(error),
    })
}

#[cfg(test)]
mod tests;
