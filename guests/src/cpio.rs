//! Writes the archives that Linux unpacks as its first root file system (cpio, "newc" form).
//!
//! The same input gives the same bytes: entries are sorted, which also puts a folder before what is in it, times
//! are zero, and every entry belongs to one owner. Content may be given as bytes or as the path of a file, which
//! is read only when the archive is written, so large trees cost no memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";

const FOLDER: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;
const BLOCK: u32 = 0o060_000;
const KIND: u32 = 0o170_000;
const PERMISSIONS: u32 = 0o7777;

/// What a device node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A character device: major and minor number.
    Character(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
}

#[derive(Debug, Clone)]
enum Content {
    Nothing,
    Bytes(Vec<u8>),
    File(PathBuf),
    Device(u32, u32),
}

#[derive(Debug, Clone)]
struct Entry {
    mode: u32,
    content: Content,
}

/// An archive that is being put together. Paths are taken relative to its root.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
    owner: (u32, u32),
}

impl Archive {
    /// An empty archive whose entries belong to root.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with everything belonging to `user` and `group`.
    #[must_use]
    pub fn owned_by(user: u32, group: u32) -> Self {
        Self {
            owner: (user, group),
            ..Self::default()
        }
    }

    /// A folder. Missing folders above anything are made with mode 0755.
    pub fn folder(&mut self, path: &str, mode: u32) -> &mut Self {
        self.put(path, FOLDER | mode, Content::Nothing)
    }

    /// A file with these bytes.
    pub fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.put(path, REGULAR | mode, Content::Bytes(bytes.into()))
    }

    /// A file with what `source` holds when the archive is written.
    pub fn file_from(&mut self, path: &str, mode: u32, source: &Path) -> &mut Self {
        self.put(path, REGULAR | mode, Content::File(source.to_owned()))
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.put(path, LINK | 0o777, Content::Bytes(target.as_bytes().to_vec()))
    }

    /// A device node.
    pub fn device(&mut self, path: &str, mode: u32, device: Device) -> &mut Self {
        let (kind, major, minor) = match device {
            Device::Character(major, minor) => (CHARACTER, major, minor),
            Device::Block(major, minor) => (BLOCK, major, minor),
        };
        self.put(path, kind | mode, Content::Device(major, minor))
    }

    /// Everything under the folder `source`, with its modes; sockets, pipes and device nodes are left out.
    pub fn tree(&mut self, path: &str, source: &Path) -> io::Result<&mut Self> {
        for found in fs::read_dir(source)? {
            let found = found?;
            let name = found.file_name();
            let Some(name) = name.to_str() else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} is not UTF-8", found.path().display()),
                ));
            };
            let inside = format!("{path}/{name}");
            let about = fs::symlink_metadata(found.path())?;
            let mode = about.permissions().mode() & PERMISSIONS;
            if about.is_dir() {
                self.folder(&inside, mode).tree(&inside, &found.path())?;
            } else if about.is_symlink() {
                let target = fs::read_link(found.path())?;
                self.link(&inside, &target.to_string_lossy());
            } else if about.is_file() {
                self.file_from(&inside, mode, &found.path());
            }
        }
        Ok(self)
    }

    /// Writes the archive.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        for (inode, (path, entry)) in (1_u32..).zip(&self.entries) {
            self.write_entry(out, inode, path, entry)?;
        }
        write_header(
            out,
            &Header {
                inode: 0,
                mode: 0,
                owner: (0, 0),
                size: 0,
                device: (0, 0),
                name: TRAILER,
            },
        )
    }

    fn put(&mut self, path: &str, mode: u32, content: Content) -> &mut Self {
        let path = path.trim_matches('/').to_owned();
        let above = path
            .char_indices()
            .filter(|(_, letter)| *letter == '/')
            .map(|(at, _)| &path[..at]);
        for folder in above {
            let entry = Entry {
                mode: FOLDER | 0o755,
                content: Content::Nothing,
            };
            self.entries.entry(folder.to_owned()).or_insert(entry);
        }
        self.entries.insert(path, Entry { mode, content });
        self
    }

    fn write_entry(&self, out: &mut impl Write, inode: u32, path: &str, entry: &Entry) -> io::Result<()> {
        let mut header = Header {
            inode,
            mode: entry.mode,
            owner: self.owner,
            size: 0,
            device: (0, 0),
            name: path,
        };
        match &entry.content {
            Content::Nothing => write_header(out, &header),
            Content::Device(major, minor) => {
                header.device = (*major, *minor);
                write_header(out, &header)
            }
            Content::Bytes(bytes) => {
                header.size = size_of_content(bytes.len() as u64)?;
                write_header(out, &header)?;
                out.write_all(bytes)?;
                pad(out, header.size)
            }
            Content::File(source) => {
                let mut file = File::open(source)?;
                header.size = size_of_content(file.metadata()?.len())?;
                write_header(out, &header)?;
                let copied = io::copy(&mut io::Read::take(&mut file, u64::from(header.size)), out)?;
                if copied != u64::from(header.size) {
                    return Err(io::Error::other(format!(
                        "{} shrank while it was read",
                        source.display()
                    )));
                }
                pad(out, header.size)
            }
        }
    }
}

struct Header<'a> {
    inode: u32,
    mode: u32,
    owner: (u32, u32),
    size: u32,
    device: (u32, u32),
    name: &'a str,
}

fn write_header(out: &mut impl Write, header: &Header<'_>) -> io::Result<()> {
    let links = if header.mode & KIND == FOLDER { 2 } else { 1 };
    let name_size = size_of_content(header.name.len() as u64 + 1)?;
    let (user, group) = header.owner;
    let (major, minor) = header.device;
    let (time, checksum, on) = (0, 0, (0, 0));
    let fields = [
        header.inode,
        header.mode,
        user,
        group,
        links,
        time,
        header.size,
        on.0,
        on.1,
        major,
        minor,
        name_size,
        checksum,
    ];
    write!(out, "{MAGIC}")?;
    for field in fields {
        write!(out, "{field:08X}")?;
    }
    write!(out, "{}\0", header.name)?;
    // Magic and thirteen fields are 110 bytes: the name ends on a multiple of four with them.
    pad(out, name_size + 110)
}

fn pad(out: &mut impl Write, written: u32) -> io::Result<()> {
    let missing = written.next_multiple_of(4) - written;
    out.write_all(&[0; 3][..missing as usize])
}

fn size_of_content(bytes: u64) -> io::Result<u32> {
    // The last three values would overflow while padding.
    u32::try_from(bytes)
        .ok()
        .filter(|size| *size < u32::MAX - 128)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                "a file of 4 GiB or more does not fit a cpio archive",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader of the format finds: name, mode, (user, group), (major, minor), content.
    type Found = (String, u32, (u32, u32), (u32, u32), Vec<u8>);

    fn read_back(mut archive: &[u8]) -> Vec<Found> {
        std::iter::from_fn(|| {
            let (found, rest) = read_one(archive);
            archive = rest;
            (found.0 != TRAILER).then_some(found)
        })
        .collect()
    }

    fn read_one(archive: &[u8]) -> (Found, &[u8]) {
        assert_eq!(&archive[..6], b"070701");
        let field = |at: usize| {
            let text = std::str::from_utf8(&archive[6 + at * 8..14 + at * 8]).unwrap();
            u32::from_str_radix(text, 16).unwrap()
        };
        let (size, name_size) = (field(6) as usize, field(11) as usize);
        let name = std::str::from_utf8(&archive[110..110 + name_size - 1])
            .unwrap()
            .to_owned();
        let data = (110 + name_size).next_multiple_of(4);
        let content = archive[data..data + size].to_vec();
        let found = (
            name,
            field(1),
            (field(2), field(3)),
            (field(9), field(10)),
            content,
        );
        (found, &archive[(data + size).next_multiple_of(4)..])
    }

    fn written(archive: &Archive) -> Vec<u8> {
        let mut bytes = Vec::new();
        archive.write_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_kind_of_entry_is_read_back_as_it_was_put_in() {
        let mut archive = Archive::owned_by(7, 8);
        archive
            .file("init", 0o755, "hello")
            .link("bin/sh", "busybox")
            .device("/dev/console", 0o600, Device::Character(5, 1))
            .device("dev/vda", 0o660, Device::Block(254, 0))
            .folder("tmp", 0o1777);
        let owner = (7, 8);
        let expected = vec![
            ("bin".to_owned(), 0o040_755, owner, (0, 0), vec![]),
            ("bin/sh".to_owned(), 0o120_777, owner, (0, 0), b"busybox".to_vec()),
            ("dev".to_owned(), 0o040_755, owner, (0, 0), vec![]),
            ("dev/console".to_owned(), 0o020_600, owner, (5, 1), vec![]),
            ("dev/vda".to_owned(), 0o060_660, owner, (254, 0), vec![]),
            ("init".to_owned(), 0o100_755, owner, (0, 0), b"hello".to_vec()),
            ("tmp".to_owned(), 0o041_777, owner, (0, 0), vec![]),
        ];
        assert_eq!(read_back(&written(&archive)), expected);
    }

    #[test]
    fn the_order_of_putting_in_does_not_change_the_archive() {
        let mut one = Archive::new();
        one.file("b", 0o644, "2").file("a/c", 0o644, "1");
        let mut other = Archive::new();
        other.file("a/c", 0o644, "1").file("b", 0o644, "2");
        assert_eq!(written(&one), written(&other));
    }

    #[test]
    fn a_folder_tree_is_taken_with_links_and_modes() {
        let source = tempfile::tempdir().unwrap();
        fs::create_dir(source.path().join("d")).unwrap();
        fs::write(source.path().join("d/f"), "text").unwrap();
        fs::set_permissions(source.path().join("d/f"), fs::Permissions::from_mode(0o4750)).unwrap();
        std::os::unix::fs::symlink("d/f", source.path().join("l")).unwrap();
        let mut archive = Archive::new();
        archive.tree("", source.path()).unwrap();
        let found = read_back(&written(&archive));
        let names: Vec<_> = found.iter().map(|entry| entry.0.as_str()).collect();
        assert_eq!(names, ["d", "d/f", "l"]);
        assert_eq!((found[1].1, found[1].4.as_slice()), (0o104_750, &b"text"[..]));
        assert_eq!(found[2].4, b"d/f");
    }

    #[test]
    fn an_archive_ends_on_a_multiple_of_four_so_that_another_can_follow() {
        let mut archive = Archive::new();
        archive.file("odd", 0o644, "12345");
        assert_eq!(written(&archive).len() % 4, 0);
    }
}
