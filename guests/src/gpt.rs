//! Partition tables of the kind that EFI knows (GPT): the same partitions give the same bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use flate2::Crc;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// Partitions begin at multiples of this, as all tools have it.
const ALIGNMENT: u64 = 1 << 20;

const HEADER_BYTES: u32 = 92;
const ENTRIES: usize = 128;
const ENTRY_BYTES: usize = 128;
/// The table of entries, in sectors.
const TABLE_SECTORS: u64 = (ENTRIES * ENTRY_BYTES) as u64 / SECTOR;
/// How much is copied at once.
const PIECE: usize = 1 << 16;
/// Longest name in letters.
const MAX_NAME: usize = 36;

/// What is in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What firmware reads.
    EfiSystem,
    /// A riscv64 system's root, so that those who look for one find it.
    RootRiscv64,
}

impl Kind {
    /// The identifier, in the order of bytes that a disk has: the first three parts little-endian.
    fn bytes(self) -> [u8; 16] {
        match self {
            Self::EfiSystem => guid(0xc12a_7328, 0xf81f, 0x11d2, 0xba4b_00a0_c93e_c93b),
            Self::RootRiscv64 => guid(0x72ec_70a6, 0xcf74, 0x40e6, 0xbd49_4bda_08e8_f224),
        }
    }
}

/// A partition that is to be written.
#[derive(Debug, Clone)]
pub struct Partition {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it holds, from first to last byte.
    pub content: PathBuf,
}

/// An identifier from its parts, as it is printed.
const fn guid(first: u32, second: u16, third: u16, rest: u64) -> [u8; 16] {
    let (a, b, c, d) = (
        first.to_le_bytes(),
        second.to_le_bytes(),
        third.to_le_bytes(),
        rest.to_be_bytes(),
    );
    [
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7],
    ]
}

/// Writes a disk with these partitions, one after the other, to the new file `disk`. `seed` is what the disk's and the partitions'
/// identifiers begin with.
pub fn write(disk: &File, seed: u32, partitions: &[Partition]) -> Result<()> {
    let mut entries = vec![0; ENTRIES * ENTRY_BYTES];
    let mut next = ALIGNMENT;
    for (number, partition) in (1_u16..).zip(partitions) {
        let content = File::open(&partition.content)
            .with_context(|| format!("cannot open {}", partition.content.display()))?;
        let size = content.metadata()?.len().next_multiple_of(SECTOR);
        copy_sparse(&content, disk, next)?;
        let entry = &mut entries[usize::from(number - 1) * ENTRY_BYTES..][..ENTRY_BYTES];
        entry[..16].copy_from_slice(&partition.kind.bytes());
        entry[16..32].copy_from_slice(&guid(seed, number, 0x4000, 0x8000_0000_0000_0000));
        entry[32..40].copy_from_slice(&(next / SECTOR).to_le_bytes());
        entry[40..48].copy_from_slice(&((next + size) / SECTOR - 1).to_le_bytes());
        for (at, letter) in partition.name.encode_utf16().take(MAX_NAME).enumerate() {
            entry[56 + at * 2..58 + at * 2].copy_from_slice(&letter.to_le_bytes());
        }
        next = (next + size).next_multiple_of(ALIGNMENT);
    }
    let sectors = next / SECTOR + ALIGNMENT / SECTOR;
    disk.set_len(sectors * SECTOR)?;
    let last = sectors - 1;
    disk.write_all_at(&protective(sectors), 0)?;
    disk.write_all_at(&header(seed, &entries, (1, last), 2, last), SECTOR)?;
    disk.write_all_at(&entries, 2 * SECTOR)?;
    let backup = last - TABLE_SECTORS;
    disk.write_all_at(&entries, backup * SECTOR)?;
    disk.write_all_at(&header(seed, &entries, (last, 1), backup, last), last * SECTOR)?;
    Ok(())
}

/// A table of the old kind that tells old tools to keep off.
fn protective(sectors: u64) -> [u8; 512] {
    let mut sector = [0; 512];
    let entry = &mut sector[446..462];
    entry[..8].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&1_u32.to_le_bytes());
    let length = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    entry[12..].copy_from_slice(&length.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// A header: where it is and where the other is, where its entries begin, and the disk's last sector.
fn header(seed: u32, entries: &[u8], (own, other): (u64, u64), table: u64, last: u64) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend_from_slice(b"EFI PART\0\0\x01\0");
    header.extend_from_slice(&HEADER_BYTES.to_le_bytes());
    header.extend_from_slice(&[0; 8]);
    let first_usable = 2 + TABLE_SECTORS;
    for sector in [own, other, first_usable, last - TABLE_SECTORS - 1] {
        header.extend_from_slice(&sector.to_le_bytes());
    }
    header.extend_from_slice(&guid(seed, 0, 0x4000, 0x8000_0000_0000_0000));
    header.extend_from_slice(&table.to_le_bytes());
    // How many entries there are, of how many bytes each, and what they sum up to.
    for word in [128, 128, checksum(entries)] {
        header.extend_from_slice(&word.to_le_bytes());
    }
    let sum = checksum(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = Crc::new();
    sum.update(bytes);
    sum.sum()
}

/// Copies a file to a place in another; pieces that are only zeroes stay holes.
fn copy_sparse(from: &File, to: &File, at: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    loop {
        let read = from.read_at(&mut piece, done)?;
        if read == 0 {
            return Ok(());
        }
        let bytes = &piece[..read];
        if bytes.iter().any(|byte| *byte != 0) {
            to.write_all_at(bytes, at + done)?;
        }
        done += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn disk() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let content = folder.path().join("content");
        fs::write(&content, [7; 1000]).unwrap();
        let partition = |name, kind| Partition {
            name,
            kind,
            content: content.clone(),
        };
        let path = folder.path().join("disk");
        let partitions = [
            partition("one", Kind::EfiSystem),
            partition("two", Kind::RootRiscv64),
        ];
        write(&File::create(&path).unwrap(), 9, &partitions).unwrap();
        fs::read(path).unwrap()
    }

    fn number(disk: &[u8], at: usize) -> usize {
        usize::try_from(u64::from_le_bytes(disk[at..at + 8].try_into().unwrap())).unwrap()
    }

    #[test]
    fn partitions_are_found_where_the_table_says() {
        let disk = disk();
        for entry in [1024, 1024 + ENTRY_BYTES] {
            let (first, last) = (number(&disk, entry + 32), number(&disk, entry + 40));
            assert_eq!(last - first, 1);
            assert_eq!(disk[first * 512..][..1000], [7; 1000]);
        }
        assert_eq!(disk[1024 + 56..][..6], *b"o\0n\0e\0");
    }

    #[test]
    fn both_headers_check_and_name_each_other() {
        let disk = disk();
        let last = disk.len() / 512 - 1;
        for (own, other) in [(1, last), (last, 1)] {
            let mut header = disk[own * 512..][..92].to_vec();
            assert_eq!((number(&header, 24), number(&header, 32)), (own, other));
            let table = number(&header, 72) * 512;
            assert_eq!(
                header[88..92],
                checksum(&disk[table..table + ENTRIES * ENTRY_BYTES]).to_le_bytes()
            );
            let said: [u8; 4] = header[16..20].try_into().unwrap();
            header[16..20].fill(0);
            assert_eq!(said, checksum(&header).to_le_bytes());
        }
    }

    #[test]
    fn an_identifier_is_written_as_firmware_reads_it() {
        let expected = [
            0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
        ];
        assert_eq!(Kind::EfiSystem.bytes(), expected);
    }
}
