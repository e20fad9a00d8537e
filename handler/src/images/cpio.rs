//! Writes a file tree as a `newc` archive, which Linux unpacks as an initial RAM disk
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! The same tree always gives the same bytes: names are sorted, parents come before children, inode numbers count
//! up. Of a file with several names the first carries the bytes; the others repeat its inode number.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use super::tree::{Content, Kind, Node, NodeId, ROOT, Tree};

/// Longest path that Linux unpacks, with its NUL (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// The archive is filled up to a multiple of this, so that another may follow.
const BLOCK: u64 = 512;

const S_IFIFO: u32 = 0o010_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// The archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CpioError {
    /// Linux would leave the file out without a word.
    #[error("the path of a file in it is longer than {MAX_PATH} bytes")]
    Path,
    /// The disk, most likely full.
    #[error("the archive cannot be written")]
    Io(#[from] io::Error),
}

/// Writes the whole tree; `layers` hold the bytes of its files.
///
/// # Errors
/// Any [`CpioError`].
pub fn write(tree: &Tree, layers: &mut [File], out: impl Write) -> Result<(), CpioError> {
    let mut writer = Writer {
        out: BufWriter::with_capacity(256 << 10, out),
        written: 0,
        inodes: HashMap::new(),
        names: count_names(tree),
    };
    // Depth first, without recursion: the tree is the image's, so its depth is too.
    let mut todo = vec![(b".".to_vec(), ROOT)];
    while let Some((path, id)) = todo.pop() {
        writer.node(&path, id, tree.node(id), layers)?;
        if let Kind::Directory(entries) = &tree.node(id).kind {
            let prefix: &[u8] = if id == ROOT { b"" } else { &path };
            todo.extend(
                entries
                    .iter()
                    .rev()
                    .map(|(name, child)| (joined(prefix, name), *child)),
            );
        }
    }
    writer.finish()
}

fn joined(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    match prefix {
        b"" => name.to_vec(),
        _ => [prefix, name].join(&b'/'),
    }
}

/// How many names each node has.
fn count_names(tree: &Tree) -> HashMap<NodeId, u32> {
    let mut names = HashMap::new();
    let mut todo = vec![ROOT];
    while let Some(id) = todo.pop() {
        let count = names.entry(id).or_insert(0u32);
        *count = count.saturating_add(1);
        if let Kind::Directory(entries) = &tree.node(id).kind {
            todo.extend(entries.values());
        }
    }
    names
}

struct Writer<W: Write> {
    out: BufWriter<W>,
    written: u64,
    /// Inode numbers of the nodes already written.
    inodes: HashMap<NodeId, u32>,
    names: HashMap<NodeId, u32>,
}

/// What a header says besides owner and time.
struct Entry<'a> {
    path: &'a [u8],
    inode: u32,
    names: u32,
    mode: u32,
    size: u32,
    device: (u32, u32),
}

// === impl Writer ===

impl<W: Write> Writer<W> {
    fn node(&mut self, path: &[u8], id: NodeId, node: &Node, layers: &mut [File]) -> Result<(), CpioError> {
        let first_name = !self.inodes.contains_key(&id);
        let next = u32::try_from(self.inodes.len()).expect("a tree has less than 2^32 nodes") + 1;
        let mut entry = Entry {
            path,
            inode: *self.inodes.entry(id).or_insert(next),
            names: self.names.get(&id).copied().unwrap_or(1),
            mode: node.meta.mode & 0o7777,
            size: 0,
            device: (0, 0),
        };
        match &node.kind {
            Kind::Directory(_) => entry.mode |= S_IFDIR,
            Kind::Fifo => entry.mode |= S_IFIFO,
            Kind::Character(major, minor) => {
                (entry.mode, entry.device) = (entry.mode | S_IFCHR, (*major, *minor));
            }
            Kind::Block(major, minor) => {
                (entry.mode, entry.device) = (entry.mode | S_IFBLK, (*major, *minor));
            }
            Kind::Symlink(target) => {
                entry.mode |= S_IFLNK;
                entry.size = u32::try_from(target.len()).map_err(|_| CpioError::Path)?;
                self.header(&entry, node)?;
                return Ok(self.data(target)?);
            }
            Kind::File(content) if first_name => {
                (entry.mode, entry.size) = (entry.mode | S_IFREG, content.size);
                self.header(&entry, node)?;
                return Ok(self.content(content, layers)?);
            }
            Kind::File(_) => entry.mode |= S_IFREG,
        }
        self.header(&entry, node)
    }

    fn header(&mut self, entry: &Entry<'_>, node: &Node) -> Result<(), CpioError> {
        if entry.path.len() >= MAX_PATH {
            return Err(CpioError::Path);
        }
        let name_size = u32::try_from(entry.path.len() + 1).map_err(|_| CpioError::Path)?;
        let (major, minor) = entry.device;
        let meta = &node.meta;
        let fields = [
            entry.inode,
            entry.mode,
            meta.uid,
            meta.gid,
            entry.names,
            meta.mtime,
            entry.size,
            0,
            0,
            major,
            minor,
            name_size,
            0,
        ];
        self.raw(b"070701")?;
        for field in fields {
            self.raw(format!("{field:08x}").as_bytes())?;
        }
        self.raw(entry.path)?;
        self.raw(b"\0")?;
        Ok(self.fill(4)?)
    }

    fn content(&mut self, content: &Content, layers: &mut [File]) -> io::Result<()> {
        let layer = layers.get_mut(content.layer).ok_or(io::ErrorKind::NotFound)?;
        layer.seek(SeekFrom::Start(content.offset))?;
        let copied = io::copy(&mut layer.take(content.size.into()), &mut self.out)?;
        if copied != u64::from(content.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.written += copied;
        self.fill(4)
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.raw(bytes)?;
        self.fill(4)
    }

    fn finish(mut self) -> Result<(), CpioError> {
        let none = Node {
            meta: super::tree::Meta {
                mode: 0,
                uid: 0,
                gid: 0,
                mtime: 0,
            },
            kind: Kind::Fifo,
        };
        let end = Entry {
            path: b"TRAILER!!!",
            inode: 0,
            names: 1,
            mode: 0,
            size: 0,
            device: (0, 0),
        };
        self.header(&end, &none)?;
        self.fill(BLOCK)?;
        Ok(self.out.flush()?)
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn fill(&mut self, multiple: u64) -> io::Result<()> {
        while !self.written.is_multiple_of(multiple) {
            self.raw(b"\0")?;
        }
        Ok(())
    }
}
