//! Writes an ISO 9660 image of a few small files, with Rock Ridge's names and modes, as Linux mounts it.
//!
//! ```text
//!   sector 0..16   nothing
//!   16, 17         volume descriptor with the label; end of descriptors
//!   18…            path table, little and big endian      (Linux does not look at them; others do)
//!   …              folders: records of 33 bytes, name, then Rock Ridge: PX (mode), NM (name)
//!   …              files, each from a sector's start on
//! ```
//!
//! The same files give the same bytes: the time is 1980, names are sorted. All of it is bounded, and made in memory.

mod record;

use std::collections::BTreeMap;

use record::{
    Extent, announcement, both16, both32, file_name, folder_name, long_name, narrow, padded, record,
};

/// ISO 9660's sector.
const SECTOR: usize = 2048;
/// Most files and folders of one image.
const MAX_ENTRIES: usize = 4096;
/// Most bytes of one image's files together.
const MAX_BYTES: usize = 16 << 20;
/// Longest part of a path: with all else about it, it must fit into a record of 255 bytes.
const MAX_NAME: usize = 160;
/// Longest label.
const MAX_LABEL: usize = 32;

/// Where the path tables are.
const TABLES: usize = 18;
/// 1980-01-01, in the descriptor's seventeen bytes.
const VOLUME_TIME: &[u8; 17] = b"1980010100000000\0";
/// What a record says of a folder.
const FOLDER_FLAG: u8 = 2;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path from the root, without a slash before it.
    pub path: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// Files that do not fit into an image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IsoError {
    /// Too many.
    #[error("there are more than {MAX_ENTRIES} files")]
    TooMany,
    /// Too much.
    #[error("the files have more than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    /// A name that no file can have.
    #[error("'{0}' cannot be a file's name; each part of it has 1 to {MAX_NAME} bytes")]
    Name(String),
    /// Two of one name, or a file where a folder is.
    #[error("'{0}' is there twice")]
    Twice(String),
    /// A label that does not fit.
    #[error("'{0}' cannot be a label: it has more than {MAX_LABEL} bytes")]
    Label(String),
}

/// The image. `mode` are the permissions of its files; its folders can be searched by whoever may read those.
///
/// # Errors
/// Any [`IsoError`].
pub fn image(label: &str, mode: u32, files: &[File]) -> Result<Vec<u8>, IsoError> {
    if label.len() > MAX_LABEL {
        return Err(IsoError::Label(label.to_owned()));
    }
    let folders = Layout::of(files)?;
    Ok(Writer::new(label, mode, files, folders).write())
}

/// What a name in a folder leads to, by its index.
#[derive(Debug, Clone, Copy)]
enum Entry {
    File(usize),
    Folder(usize),
}

/// A folder: its parent's index, and what is in it.
#[derive(Debug, Default)]
struct Folder {
    parent: usize,
    /// Its place among the folders in its parent, which is its name for those who do not know Rock Ridge.
    place: usize,
    entries: BTreeMap<String, Entry>,
}

/// All folders; a folder stands behind its parent.
struct Layout(Vec<Folder>);

// === impl Layout ===

impl Layout {
    fn of(files: &[File]) -> Result<Vec<Folder>, IsoError> {
        let bytes = files.iter().map(|file| file.content.len());
        if bytes.fold(0, usize::saturating_add) > MAX_BYTES {
            return Err(IsoError::TooLarge);
        }
        let mut layout = Self(vec![Folder::default()]);
        for (index, file) in files.iter().enumerate() {
            layout.add(index, &file.path)?;
            if index + layout.0.len() > MAX_ENTRIES {
                return Err(IsoError::TooMany);
            }
        }
        Ok(layout.by_levels())
    }

    fn add(&mut self, index: usize, path: &str) -> Result<(), IsoError> {
        let bad =
            |part: &str| matches!(part, "" | "." | "..") || part.len() > MAX_NAME || part.contains('\0');
        if path.split('/').any(bad) {
            return Err(IsoError::Name(path.to_owned()));
        }
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut here = 0;
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            let fresh = self.0.len();
            let entry = self.0[here].entries.entry(part.to_owned());
            let Entry::Folder(next) = *entry.or_insert(Entry::Folder(fresh)) else {
                return Err(IsoError::Twice(path.to_owned()));
            };
            if next == fresh {
                self.0.push(Folder {
                    parent: here,
                    ..Folder::default()
                });
            }
            here = next;
        }
        match self.0[here].entries.insert(name.to_owned(), Entry::File(index)) {
            None => Ok(()),
            Some(_) => Err(IsoError::Twice(path.to_owned())),
        }
    }

    /// In the order of the path tables: level by level, and in a level by parent and name.
    fn by_levels(mut self) -> Vec<Folder> {
        let mut order = vec![0];
        let mut at = 0;
        while at < order.len() {
            let folder = &mut self.0[order[at]];
            folder.parent = order.iter().position(|old| *old == folder.parent).unwrap_or(0);
            let entries: Vec<Entry> = folder.entries.values().copied().collect();
            for (place, entry) in entries.into_iter().enumerate() {
                if let Entry::Folder(old) = entry {
                    self.0[old].place = place;
                    order.push(old);
                }
            }
            at += 1;
        }
        let mut fresh = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            fresh[*old] = new;
        }
        let mut folders: Vec<Option<Folder>> = self.0.into_iter().map(Some).collect();
        let sorted = order.iter().filter_map(|old| folders[*old].take());
        sorted
            .map(|mut folder| {
                for entry in folder.entries.values_mut() {
                    if let Entry::Folder(old) = entry {
                        *old = fresh[*old];
                    }
                }
                folder
            })
            .collect()
    }
}

struct Writer<'a> {
    label: &'a str,
    mode: u32,
    files: &'a [File],
    folders: Vec<Folder>,
    /// Of folders and of files, by index. Records have the same length wherever things lie, so folders are measured first.
    folder_extents: Vec<Extent>,
    file_extents: Vec<Extent>,
    table_bytes: usize,
    sectors: usize,
}

// === impl Writer ===

impl<'a> Writer<'a> {
    fn new(label: &'a str, mode: u32, files: &'a [File], folders: Vec<Folder>) -> Self {
        let mut writer = Self {
            label,
            mode,
            files,
            folder_extents: vec![Extent::default(); folders.len()],
            file_extents: vec![Extent::default(); files.len()],
            folders,
            table_bytes: 0,
            sectors: 0,
        };
        writer.table_bytes = writer.table(u32::to_le_bytes, u16::to_le_bytes).len();
        let mut next = TABLES + 2 * writer.table_bytes.div_ceil(SECTOR);
        for index in 0..writer.folders.len() {
            let extent = Extent {
                sector: next,
                bytes: writer.folder(index).len(),
            };
            next += extent.sectors();
            writer.folder_extents[index] = extent;
        }
        for (file, extent) in files.iter().zip(&mut writer.file_extents) {
            *extent = Extent {
                sector: next,
                bytes: file.content.len(),
            };
            next += extent.sectors();
        }
        writer.sectors = next;
        writer
    }

    fn write(&self) -> Vec<u8> {
        let mut out = vec![0; self.sectors * SECTOR];
        let mut put = |sector: usize, bytes: &[u8]| {
            out[sector * SECTOR..][..bytes.len()].copy_from_slice(bytes);
        };
        put(16, &self.descriptor());
        put(17, b"\xffCD001\x01");
        put(TABLES, &self.table(u32::to_le_bytes, u16::to_le_bytes));
        let second = TABLES + self.table_bytes.div_ceil(SECTOR);
        put(second, &self.table(u32::to_be_bytes, u16::to_be_bytes));
        for (index, extent) in self.folder_extents.iter().enumerate() {
            put(extent.sector, &self.folder(index));
        }
        for (file, extent) in self.files.iter().zip(&self.file_extents) {
            put(extent.sector, &file.content);
        }
        out
    }

    fn descriptor(&self) -> Vec<u8> {
        let mut out = b"\x01CD001\x01\0".to_vec();
        out.extend([b' '; 32]);
        out.extend(padded(self.label, 32));
        out.extend([0; 8]);
        out.extend(both32(self.sectors));
        out.extend([0; 32]);
        out.extend(both16(1));
        out.extend(both16(1));
        out.extend(both16(SECTOR));
        out.extend(both32(self.table_bytes));
        out.extend(narrow(TABLES).to_le_bytes());
        out.extend([0; 4]);
        out.extend(narrow(TABLES + self.table_bytes.div_ceil(SECTOR)).to_be_bytes());
        out.extend([0; 4]);
        out.extend(record(&[0], self.folder_extents[0], FOLDER_FLAG, &[]));
        // Names of the set, the publisher, the preparer, the application, and three files.
        out.extend([b' '; 4 * 128 + 3 * 37]);
        out.extend(VOLUME_TIME);
        out.extend(VOLUME_TIME);
        // It neither expires nor becomes effective later.
        out.extend([*b"0000000000000000\0"; 2].concat());
        out.push(1);
        out.resize(SECTOR, 0);
        out
    }

    fn table(&self, four: fn(u32) -> [u8; 4], two: fn(u16) -> [u8; 2]) -> Vec<u8> {
        let mut out = Vec::new();
        for (folder, extent) in self.folders.iter().zip(&self.folder_extents) {
            let name = if out.is_empty() {
                vec![0]
            } else {
                folder_name(folder.place)
            };
            out.extend([u8::try_from(name.len()).unwrap_or(u8::MAX), 0]);
            out.extend(four(narrow(extent.sector)));
            out.extend(two(u16::try_from(folder.parent + 1).unwrap_or(u16::MAX)));
            out.extend(&name);
            out.resize(out.len().next_multiple_of(2), 0);
        }
        out
    }

    /// A folder's records, none of which lies in two sectors.
    fn folder(&self, index: usize) -> Vec<u8> {
        let folder = &self.folders[index];
        let mut out = Vec::new();
        let mut push = |record: Vec<u8>| {
            if out.len() % SECTOR + record.len() > SECTOR {
                out.resize(out.len().next_multiple_of(SECTOR), 0);
            }
            out.extend(record);
        };
        let own = self.folder_extents[index];
        let announced = if index == 0 { announcement() } else { Vec::new() };
        push(record(
            &[0],
            own,
            FOLDER_FLAG,
            &[announced, self.attributes(S_IFDIR)].concat(),
        ));
        let parent = self.folder_extents[folder.parent];
        push(record(&[1], parent, FOLDER_FLAG, &self.attributes(S_IFDIR)));
        for (place, (name, entry)) in folder.entries.iter().enumerate() {
            let named = |kind| [self.attributes(kind), long_name(name)].concat();
            push(match *entry {
                Entry::File(file) => record(&file_name(place), self.file_extents[file], 0, &named(S_IFREG)),
                Entry::Folder(folder) => record(
                    &folder_name(place),
                    self.folder_extents[folder],
                    FOLDER_FLAG,
                    &named(S_IFDIR),
                ),
            });
        }
        out.resize(out.len().next_multiple_of(SECTOR), 0);
        out
    }

    /// Rock Ridge's PX: mode, links, owner, group.
    fn attributes(&self, kind: u32) -> Vec<u8> {
        // Who may read may search.
        let search = if kind == S_IFDIR {
            (self.mode & 0o444) >> 2
        } else {
            0
        };
        let links = if kind == S_IFDIR { 2 } else { 1 };
        let mode = usize::try_from(kind | self.mode | search).unwrap_or(0);
        let mut out = b"PX\x24\x01".to_vec();
        for number in [mode, links, 0, 0] {
            out.extend(both32(number));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: &str) -> File {
        File {
            path: path.to_owned(),
            content: content.into(),
        }
    }

    #[test]
    fn the_label_stands_where_readers_look_for_it_and_sizes_are_whole() {
        let image = image("config-2", 0o444, &[file("a", "x")]).unwrap();
        assert_eq!(&image[16 * SECTOR..][..8], b"\x01CD001\x01\0");
        assert_eq!(
            &image[16 * SECTOR + 40..][..32],
            format!("{:32}", "config-2").as_bytes()
        );
        assert_eq!(
            image[16 * SECTOR + 881],
            1,
            "the version of the structure stands where it should"
        );
        assert_eq!(image.len() % SECTOR, 0);
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let (a, b) = (file("x/a", "1"), file("b", "2"));
        let one = image("l", 0o400, &[a.clone(), b.clone()]).unwrap();
        assert_eq!(image("l", 0o400, &[a.clone(), b.clone()]).unwrap(), one);
        assert_eq!(image("l", 0o400, &[b, a]).unwrap().len(), one.len());
    }

    #[test]
    fn no_record_lies_in_two_sectors_however_long_its_name() {
        let files: Vec<File> = (0..100).map(|n| file(&format!("{n:0160}"), "x")).collect();
        let image = image("l", 0o444, &files).unwrap();
        let root = &image[16 * SECTOR + 156..][..34];
        let number = |at: usize| u32::from_le_bytes(root[at..at + 4].try_into().unwrap()) as usize;
        let folder = &image[number(2) * SECTOR..][..number(10)];
        let mut names = 0;
        for sector in folder.chunks(SECTOR) {
            let mut at = 0;
            while at < SECTOR && sector[at] != 0 {
                at += usize::from(sector[at]);
                names += 1;
            }
            assert!(at <= SECTOR);
        }
        assert_eq!(names, 102, "the files, the folder and its parent");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let refused = |files: &[File]| image("l", 0o400, files).unwrap_err();
        assert_eq!(refused(&[file("../a", "")]), IsoError::Name("../a".into()));
        assert_eq!(refused(&[file("a//b", "")]), IsoError::Name("a//b".into()));
        let long = "n".repeat(MAX_NAME + 1);
        assert_eq!(refused(&[file(&long, "")]), IsoError::Name(long));
        assert_eq!(
            refused(&[file("a", ""), file("a", "")]),
            IsoError::Twice("a".into())
        );
        assert_eq!(
            refused(&[file("a", ""), file("a/b", "")]),
            IsoError::Twice("a/b".into())
        );
        let large = File {
            path: "a".into(),
            content: vec![0; MAX_BYTES + 1],
        };
        assert_eq!(refused(&[large]), IsoError::TooLarge);
        let many: Vec<File> = (0..=MAX_ENTRIES).map(|n| file(&n.to_string(), "")).collect();
        assert_eq!(refused(&many), IsoError::TooMany);
        let label = "l".repeat(33);
        assert_eq!(image(&label, 0o400, &[]), Err(IsoError::Label(label)));
    }
}
