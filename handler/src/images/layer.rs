//! Applies one image layer, an unpacked tar archive, to a file tree (OCI image-spec, layer.md).
//!
//! Two passes: first what the layer takes away from those below it (whiteouts), then what it adds, so that a
//! whiteout never hides a file of its own layer. The archive is an image's, so it is hostile: its extension headers
//! are read here, with bounds, and what cannot be right is refused instead of guessed at.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use tar::{Archive, EntryType, Header, PaxExtensions};

use super::tree::{Content, Kind, MAX_DEPTH, Meta, Name, Node, Tree, TreeError, shown};

/// Most entries of one layer.
pub const MAX_ENTRIES: usize = 500_000;

/// Longest extension header: long names, PAX records.
const MAX_EXTENSION: u64 = 1 << 20;

/// Longest path and longest symbolic link, as in Linux.
const MAX_PATH: usize = 4096;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The layer is not one that can be applied.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Not a tar archive, or cut off.
    #[error("it is not a whole tar archive")]
    Archive(#[source] io::Error),
    /// More than [`MAX_ENTRIES`].
    #[error("it has more than {MAX_ENTRIES} entries")]
    TooMany,
    /// An extension header larger than [`MAX_EXTENSION`], or unreadable.
    #[error("an extension header in it is too large or not readable")]
    Extension,
    /// A path that is absolute, has `..`, a NUL, or is too long.
    #[error("'{0}' in it is no path below a root: absolute, with '..', or longer than {MAX_PATH} bytes")]
    Path(String),
    /// A kind of entry that no file system has, or that hides its size.
    #[error("'{0}' in it is of a kind that is not supported")]
    Kind(String),
    /// An owner, size, device or link beyond what a file system holds.
    #[error("'{0}' in it has a size, owner, device or link that cannot be")]
    Value(String),
    /// What it does to the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// What one entry of the archive does.
struct Entry {
    path: Vec<Name>,
    what: What,
}

enum What {
    Put(Node),
    Link(Vec<Name>),
}

/// Applies the layer with this number; `archive` is its tar, without compression.
///
/// # Errors
/// Any [`LayerError`]; the tree is then of no use.
pub fn apply(tree: &mut Tree, number: usize, archive: &File) -> Result<(), LayerError> {
    let entries = read(number, archive)?;
    for entry in &entries {
        take_away(tree, &entry.path)?;
    }
    for entry in entries {
        if entry.path.last().is_some_and(|name| name.starts_with(WHITEOUT)) {
            continue;
        }
        match entry.what {
            What::Put(node) => tree.put(&entry.path, node)?,
            What::Link(target) => tree.link(&entry.path, &target)?,
        }
    }
    Ok(())
}

fn take_away(tree: &mut Tree, path: &[Name]) -> Result<(), TreeError> {
    let Some((name, folder)) = path.split_last() else {
        return Ok(());
    };
    if name == OPAQUE {
        return tree.clear(folder);
    }
    match name.strip_prefix(WHITEOUT) {
        // `.wh..wh.` marks the bookkeeping of old storage drivers.
        Some(hidden) if !hidden.is_empty() && !hidden.starts_with(WHITEOUT) => {
            let mut hidden_path = folder.to_vec();
            hidden_path.push(hidden.to_vec());
            tree.remove(&hidden_path)
        }
        _ => Ok(()),
    }
}

/// What extension headers said of the entry that follows them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<u64>,
    sparse: bool,
}

fn read(number: usize, archive: &File) -> Result<Vec<Entry>, LayerError> {
    let length = archive.metadata().map_err(LayerError::Archive)?.len();
    let mut archive = Archive::new(archive);
    let mut entries = Vec::new();
    let mut said = Extensions::default();
    // Raw: the crate would read extension headers whole into memory, however large they say they are.
    for entry in archive
        .entries_with_seek()
        .map_err(LayerError::Archive)?
        .raw(true)
    {
        let mut entry = entry.map_err(LayerError::Archive)?;
        if entries.len() >= MAX_ENTRIES {
            return Err(LayerError::TooMany);
        }
        match entry.header().entry_type() {
            EntryType::GNULongName => said.path = Some(without_nul(extension(&mut entry)?)),
            EntryType::GNULongLink => said.link = Some(without_nul(extension(&mut entry)?)),
            EntryType::XHeader => said.pax(&extension(&mut entry)?)?,
            EntryType::XGlobalHeader => drop(extension(&mut entry)?),
            _ => {
                let offset = entry.raw_file_position();
                // Contents are passed over here, and only read much later.
                if entry.size() > length.saturating_sub(offset) {
                    return Err(LayerError::Archive(io::ErrorKind::UnexpectedEof.into()));
                }
                entries.push(understand(
                    entry.header(),
                    offset,
                    number,
                    &std::mem::take(&mut said),
                )?);
            }
        }
    }
    Ok(entries)
}

fn extension<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Vec<u8>, LayerError> {
    if entry.size() > MAX_EXTENSION {
        return Err(LayerError::Extension);
    }
    let mut bytes = Vec::new();
    entry
        .take(MAX_EXTENSION)
        .read_to_end(&mut bytes)
        .map_err(LayerError::Archive)?;
    Ok(bytes)
}

fn without_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

// === impl Extensions ===

impl Extensions {
    fn pax(&mut self, records: &[u8]) -> Result<(), LayerError> {
        for record in PaxExtensions::new(records) {
            let record = record.map_err(|_| LayerError::Extension)?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number(value)?),
                b"uid" => self.uid = Some(number(value)?),
                b"gid" => self.gid = Some(number(value)?),
                // A time may be negative or have a fraction; what does not fit is left to the plain header.
                b"mtime" => self.mtime = number(value).ok(),
                key if key.starts_with(b"GNU.sparse") => self.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// What the entry links to.
    fn target(&self, header: &Header) -> Option<Vec<u8>> {
        let plain = || header.link_name_bytes().map(|bytes| bytes.into_owned());
        let target = self.link.clone().or_else(plain)?;
        ((1..MAX_PATH).contains(&target.len()) && !target.contains(&0)).then_some(target)
    }

    /// Owner, mode and time of the entry.
    fn meta(&self, header: &Header) -> Option<Meta> {
        let id = |plain: io::Result<u64>, better: Option<u64>| u32::try_from(better.or(plain.ok())?).ok();
        let mtime = self.mtime.or(header.mtime().ok());
        Some(Meta {
            mode: header.mode().ok()? & 0o7777,
            uid: id(header.uid(), self.uid)?,
            gid: id(header.gid(), self.gid)?,
            mtime: mtime.and_then(|time| u32::try_from(time).ok()).unwrap_or(0),
        })
    }
}

/// The whole part of a decimal number.
fn number(value: &[u8]) -> Result<u64, LayerError> {
    let text = std::str::from_utf8(value).map_err(|_| LayerError::Extension)?;
    let whole = text.split('.').next().unwrap_or(text);
    whole.parse().map_err(|_| LayerError::Extension)
}

fn understand(header: &Header, offset: u64, layer: usize, said: &Extensions) -> Result<Entry, LayerError> {
    let raw = said
        .path
        .clone()
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let name = String::from_utf8_lossy(&raw).into_owned();
    let path = parts(&raw).ok_or_else(|| LayerError::Path(name.clone()))?;
    let bad_value = || LayerError::Value(shown(&path));
    let size = header.entry_size().map_err(|_| bad_value())?;
    // Entries were found by the plain header's size; one that claims another hides what lies between.
    if said.sparse || said.size.is_some_and(|claimed| claimed != size) {
        return Err(LayerError::Kind(name));
    }
    let device = || {
        let number = |part: io::Result<Option<u32>>| part.ok().flatten().ok_or_else(bad_value);
        Ok::<_, LayerError>((number(header.device_major())?, number(header.device_minor())?))
    };
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => {
            let size = u32::try_from(size).map_err(|_| bad_value())?;
            Kind::File(Content { layer, offset, size })
        }
        EntryType::Directory => Kind::Directory(BTreeMap::new()),
        EntryType::Symlink => Kind::Symlink(said.target(header).ok_or_else(bad_value)?),
        EntryType::Char => device().map(|(major, minor)| Kind::Character(major, minor))?,
        EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Link => {
            let target = said
                .target(header)
                .as_deref()
                .and_then(parts)
                .ok_or_else(bad_value)?;
            return Ok(Entry {
                path,
                what: What::Link(target),
            });
        }
        _ => return Err(LayerError::Kind(name)),
    };
    let meta = said.meta(header).ok_or_else(bad_value)?;
    Ok(Entry {
        path,
        what: What::Put(Node { meta, kind }),
    })
}

/// The names of a relative path, or nothing for one that leads out of its root.
fn parts(path: &[u8]) -> Option<Vec<Name>> {
    if path.len() >= MAX_PATH || path.starts_with(b"/") || path.contains(&0) {
        return None;
    }
    let names = path
        .split(|&byte| byte == b'/')
        .filter(|part| !matches!(part, [] | [b'.']));
    let names: Vec<Name> = names.take(MAX_DEPTH + 1).map(<[u8]>::to_vec).collect();
    (names.len() <= MAX_DEPTH && !names.iter().any(|name| name == b"..")).then_some(names)
}

#[cfg(test)]
mod tests;
