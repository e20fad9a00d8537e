//! What a qcow2 header may say, looked at before imago sees the image.
//!
//! The image is hostile: a guest or whoever made it may have written anything into it. What would make us open other
//! files, hold much memory, or work for long before the first request is refused here, each by its name. Whatever else
//! is wrong is found by imago, cluster by cluster, and is then an I/O error of one request.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use imago::io_buffers::IoBuffer;

const MAGIC: &[u8] = b"QFI\xfb";

/// Clusters of 512 bytes to 2 MiB, as for QEMU. imago holds up to 160 of them as tables.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Largest disk: 1 PiB.
const MAX_SIZE: u64 = 1 << 50;
/// Largest first-level table in bytes, QEMU's limit. imago holds it in memory.
const MAX_L1: u64 = 32 << 20;
/// Largest refcount table in bytes, QEMU's limit. imago holds it in memory.
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
/// Most header extensions. There are four kinds.
const MAX_EXTENSIONS: usize = 16;
/// Largest header extension in bytes.
const MAX_EXTENSION: u32 = 64 << 10;
/// Longest name of another file.
const MAX_NAME: u32 = 1023;

const V2_LEN: u64 = 72;
const V3_LEN: u64 = 104;

const ENTRY: u64 = 8;
/// Where a cluster is, in an entry of the refcount table: all but the low nine bits.
const CLUSTER_MASK: u64 = !0x1ff;

const DATA_FILE_EXTENSION: u32 = 0x4441_5441;

/// Why an image cannot be used as qcow2.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// The file cannot be read.
    #[error("its header cannot be read")]
    Read(#[source] io::Error),
    /// imago refuses.
    #[error("it cannot be opened")]
    Open(#[source] io::Error),
    /// Too short.
    #[error("it ends before {0} does")]
    Short(&'static str),
    /// Another file.
    #[error("it is no qcow2 image")]
    Magic,
    /// Another version.
    #[error("version {0} is not supported; 2 and 3 are")]
    Version(u32),
    /// Only a part of a disk.
    #[error("it needs the backing file '{0}'; only images that are complete in one file are supported")]
    BackingFile(String),
    /// Only the tables of a disk.
    #[error("it needs the data file '{0}'; only images that are complete in one file are supported")]
    DataFile(String),
    /// Nobody has the key.
    #[error("it is encrypted, which is not supported")]
    Encrypted,
    /// Writing would have to keep them.
    #[error("it has {0} snapshots, which are not supported")]
    Snapshots(u32),
    /// Something that changes what the image means.
    #[error("it uses {0}, which is not supported")]
    Feature(String),
    /// A number beyond its bounds.
    #[error("{0} is {1}, which is not possible")]
    Field(&'static str, u64),
    /// A table that lies elsewhere.
    #[error("{0} is not in the file")]
    Outside(&'static str),
    /// Many entries of one cluster.
    #[error("its refcount table names a cluster twice")]
    Twice,
}

/// A header, as it stands in the file.
struct Header(Vec<u8>);

// === impl Header ===

impl Header {
    fn read(file: &File) -> Result<Self, Qcow2Error> {
        let start = read(file, 0, V2_LEN, "its header")?;
        let v2 = Self(start);
        if v2.0[..4] != *MAGIC {
            return Err(Qcow2Error::Magic);
        }
        match v2.u32(4) {
            2 => Ok(v2),
            3 => Ok(Self(read(file, 0, V3_LEN, "its header")?)),
            other => Err(Qcow2Error::Version(other)),
        }
    }

    /// Zero for what a header of version 2 has not.
    fn u32(&self, at: usize) -> u32 {
        let bytes = self.0.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) << 32 | u64::from(self.u32(at + 4))
    }

    fn is_v2(&self) -> bool {
        self.u32(4) == 2
    }

    fn cluster_size(&self) -> Result<u64, Qcow2Error> {
        let bits = self.u32(20);
        if CLUSTER_BITS.contains(&bits) {
            Ok(1 << bits)
        } else {
            Err(Qcow2Error::Field("its cluster_bits", bits.into()))
        }
    }

    /// Bits that change what the image means. Each must be known, and none of them is supported.
    fn check_features(&self) -> Result<(), Qcow2Error> {
        const NAMES: [&str; 5] = [
            "a dirty bit (it was not closed; 'qemu-img check -r all' repairs it)",
            "a corrupt bit ('qemu-img check -r all' repairs it)",
            "a data file",
            "another compression than zlib",
            "extended L2 entries",
        ];
        const DATA_FILE: u64 = 1 << 2;
        match self.u64(72) & !DATA_FILE {
            0 => Ok(()),
            bits => {
                let bit = bits.trailing_zeros() as usize;
                let name = NAMES.get(bit).map(|name| (*name).to_owned());
                Err(Qcow2Error::Feature(
                    name.unwrap_or_else(|| format!("the unknown feature {bit}")),
                ))
            }
        }
    }

    fn has_data_file(&self) -> bool {
        self.u64(72) & 1 << 2 != 0
    }
}

/// Refuses an image that imago must not see.
pub(super) fn check(file: &File, len: u64) -> Result<(), Qcow2Error> {
    let header = Header::read(file)?;
    let cluster = header.cluster_size()?;
    header.check_features()?;
    let extensions = check_extensions(file, &header, cluster)?;
    if header.has_data_file() || extensions.is_some() {
        return Err(Qcow2Error::DataFile(extensions.unwrap_or_default()));
    }
    check_backing(file, &header)?;
    if header.u32(32) != 0 {
        return Err(Qcow2Error::Encrypted);
    }
    if header.u32(60) != 0 {
        return Err(Qcow2Error::Snapshots(header.u32(60)));
    }
    if !header.is_v2() && header.u32(96) > 6 {
        return Err(Qcow2Error::Field("its refcount_order", header.u32(96).into()));
    }
    check_l1(&header, cluster, len)?;
    check_refcounts(file, &header, cluster, len)
}

/// Bytes of a cluster of an image that was checked.
pub(super) fn cluster_size(file: &File) -> Result<u32, Qcow2Error> {
    let size = Header::read(file)?.cluster_size()?;
    Ok(u32::try_from(size).unwrap_or(u32::MAX))
}

fn check_backing(file: &File, header: &Header) -> Result<(), Qcow2Error> {
    let (offset, len) = (header.u64(8), header.u32(16));
    if offset == 0 {
        return Ok(());
    }
    if len > MAX_NAME {
        return Err(Qcow2Error::Field("its backing_file_size", len.into()));
    }
    let name = read(file, offset, len.into(), "the name of its backing file")?;
    Err(Qcow2Error::BackingFile(printable(&name)))
}

/// Walks the extensions, and returns the name of a data file if one has it.
fn check_extensions(file: &File, header: &Header, cluster: u64) -> Result<Option<String>, Qcow2Error> {
    let len = u64::from(header.u32(100));
    if header.is_v2() {
        return Ok(None);
    }
    if !(V3_LEN..=cluster).contains(&len) {
        return Err(Qcow2Error::Field("its header_length", len));
    }
    let (mut at, mut data_file) = (len, None);
    for _ in 0..MAX_EXTENSIONS {
        let extension = Header(read(file, at, ENTRY, "its header extensions")?);
        let (kind, len) = (extension.u32(0), extension.u32(4));
        if kind == 0 {
            return Ok(data_file);
        }
        if len > MAX_EXTENSION {
            return Err(Qcow2Error::Field("the length of a header extension", len.into()));
        }
        at += ENTRY;
        if kind == DATA_FILE_EXTENSION {
            let name = read(file, at, len.min(MAX_NAME).into(), "the name of its data file")?;
            data_file = Some(printable(&name));
        }
        at += u64::from(len).next_multiple_of(ENTRY);
    }
    let most = MAX_EXTENSIONS as u64;
    Err(Qcow2Error::Field(
        "the number of its header extensions, which is more than",
        most,
    ))
}

/// The table must be there as a whole, and name a place for each byte of the disk.
fn check_l1(header: &Header, cluster: u64, len: u64) -> Result<(), Qcow2Error> {
    let (size, entries, offset) = (header.u64(24), u64::from(header.u32(36)), header.u64(40));
    if size > MAX_SIZE {
        return Err(Qcow2Error::Field("its size", size));
    }
    // An entry stands for a table of one cluster, each of whose entries stands for a cluster.
    let needed = size.div_ceil(cluster * (cluster / ENTRY));
    if entries < needed || entries * ENTRY > MAX_L1 {
        return Err(Qcow2Error::Field("its l1_size", entries));
    }
    check_place("its L1 table", offset, entries * ENTRY, (cluster, len))
}

/// The table must be there as a whole, its clusters too, and each only once: looking for a free cluster then takes no
/// longer than reading the file.
fn check_refcounts(file: &File, header: &Header, cluster: u64, len: u64) -> Result<(), Qcow2Error> {
    let (offset, clusters) = (header.u64(48), u64::from(header.u32(56)));
    let bytes = clusters * cluster;
    if clusters == 0 || bytes > MAX_REFCOUNT_TABLE {
        return Err(Qcow2Error::Field("its refcount_table_clusters", clusters));
    }
    check_place("its refcount table", offset, bytes, (cluster, len))?;
    let table = read(file, offset, bytes, "its refcount table")?;
    let entries = table.chunks_exact(8).filter_map(|entry| entry.try_into().ok());
    let blocks = entries.map(|entry| u64::from_be_bytes(entry) & CLUSTER_MASK);
    let mut blocks: Vec<u64> = blocks.filter(|block| *block != 0).collect();
    for block in &blocks {
        check_place("a refcount block", *block, 1, (cluster, len))?;
    }
    blocks.sort_unstable();
    if blocks.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Qcow2Error::Twice);
    }
    Ok(())
}

fn check_place(
    what: &'static str,
    offset: u64,
    bytes: u64,
    (cluster, len): (u64, u64),
) -> Result<(), Qcow2Error> {
    let end = offset.checked_add(bytes);
    if bytes == 0 {
        return Ok(());
    }
    // The first cluster is the header's.
    if offset < cluster || !offset.is_multiple_of(cluster) || end.is_none_or(|end| end > len) {
        return Err(Qcow2Error::Outside(what));
    }
    Ok(())
}

/// Reads a part of the file that should be there. All parts are bounded by who asks.
fn read(file: &File, offset: u64, len: u64, what: &'static str) -> Result<Vec<u8>, Qcow2Error> {
    // Direct I/O takes only whole blocks of memory and file; any other file does not care.
    const BLOCK: u64 = 4096;
    let start = offset - offset % BLOCK;
    let wanted = (offset - start).checked_add(len).ok_or(Qcow2Error::Short(what))?;
    let whole = usize::try_from(wanted.next_multiple_of(BLOCK)).map_err(|_| Qcow2Error::Short(what))?;
    let mut buffer = IoBuffer::new(whole, 4096).map_err(Qcow2Error::Read)?;
    let mut done = 0;
    while (done as u64) < wanted {
        let rest = buffer.as_mut_range(done..whole).into_slice();
        match file.read_at(rest, start.saturating_add(done as u64)) {
            Ok(0) => return Err(Qcow2Error::Short(what)),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Beyond what a file can have.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(Qcow2Error::Short(what)),
            Err(error) => return Err(Qcow2Error::Read(error)),
        }
    }
    let bytes = buffer.as_ref().into_slice();
    let from = usize::try_from(offset - start).unwrap_or(whole);
    let to = usize::try_from(wanted).unwrap_or(whole);
    Ok(bytes.get(from..to).unwrap_or_default().to_vec())
}

/// A name that a terminal can show.
fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().collect()
}

#[cfg(test)]
mod tests;
