//! An image's layers, applied in order: as one archive that Linux unpacks into the root of its RAM disk, or as the
//! single files in them.
//!
//! ```text
//!   layer 0 (tar, tar+gzip) ──unpack, check──► unnamed file ─┐ apply
//!   layer 1                 ──────────────────► unnamed file ─┼──────► Tree ──► newc archive
//!   …                                                         │         (names; contents by place)
//!                                                             └─ contents are copied from here
//! ```
//!
//! No root is needed: owners, modes and devices are only numbers in the archive. Extended attributes are left out,
//! `newc` has no place for them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::cpio::{self, CpioError};
use super::layer::{self, LayerError};
use super::layout::{Image, Layout, LayoutError, MAX_UNPACKED};
use super::tree::{self, Kind, Name, Tree, TreeError};

/// What the init archive brings: the image may not put anything in its place, or it would keep our init from starting
/// or load its own modules as ours. `/dev` is in it for the console; the guest's own is mounted there anyway.
const RESERVED: [&[u8]; 3] = [b"rvm-init", b"rvm", b"dev"];

/// Where an image of a disk has it.
pub const DISK_FOLDER: &str = "disk";

/// The image does not become a root file system.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The image's blobs.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// What a layer holds.
    #[error("layer {0} of the image cannot be used")]
    Layer(usize, #[source] LayerError),
    /// What comes of it.
    #[error("the image cannot be made a root file system")]
    Cpio(#[from] CpioError),
    /// A file that it should hold.
    #[error("the image has no file '{0}'")]
    NoFile(String),
    /// No disk in it.
    #[error("no file found in folder /{DISK_FOLDER}")]
    NoDisk,
    /// Several.
    #[error("more than one file found in folder /{DISK_FOLDER}")]
    SeveralDisks,
    /// A path that cannot be followed.
    #[error("'{0}' cannot be found in the image")]
    Path(String, #[source] TreeError),
    /// No room to work in.
    #[error("'{0}' has no room for the image's layers")]
    Scratch(PathBuf, #[source] io::Error),
}

/// An image's file system: the tree, and the unpacked layers that hold its bytes.
#[derive(Debug)]
pub struct Root {
    tree: Tree,
    layers: Vec<File>,
}

// === impl Root ===

impl Root {
    /// Unpacks an image into unnamed files of `scratch`, which are gone when this is.
    ///
    /// # Errors
    /// Any [`RootError`].
    pub fn unpack(layout: &Layout, image: &Image, scratch: &Path) -> Result<Self, RootError> {
        let mut tree = Tree::default();
        let mut layers: Vec<File> = Vec::new();
        let mut room = MAX_UNPACKED;
        for (number, blob) in image.layers.iter().enumerate() {
            let no_room = |error| RootError::Scratch(scratch.to_owned(), error);
            let mut archive = tempfile::tempfile_in(scratch).map_err(no_room)?;
            room -= layout.unpack(blob, room, &mut archive)?;
            archive.rewind().map_err(no_room)?;
            layer::apply(&mut tree, number, &archive).map_err(|error| RootError::Layer(number, error))?;
            layers.push(archive);
        }
        Ok(Self { tree, layers })
    }

    /// Writes it as an archive that follows the one of our init, without what that one brings.
    ///
    /// # Errors
    /// Any [`RootError`]; what was written is then of no use.
    pub fn write(&mut self, out: impl Write) -> Result<(), RootError> {
        for name in RESERVED {
            self.tree
                .remove(&[name.to_vec()])
                .map_err(|error| RootError::Path(String::from_utf8_lossy(name).into_owned(), error))?;
        }
        Ok(cpio::write(&self.tree, &mut self.layers, out)?)
    }

    /// Writes its disk: the only file under `/disk`, or the one at this path.
    ///
    /// # Errors
    /// Any [`RootError`]; what was written is then of no use.
    pub fn write_disk(&mut self, path: Option<&str>, out: impl Write) -> Result<(), RootError> {
        if let Some(path) = path {
            return self.write_file(path, out);
        }
        let folder = [DISK_FOLDER.as_bytes().to_vec()];
        let found = self
            .tree
            .find(&folder)
            .map_err(|error| RootError::Path(DISK_FOLDER.to_owned(), error))?;
        let Some(Kind::Directory(files)) = found.map(|id| &self.tree.node(id).kind) else {
            return Err(RootError::NoDisk);
        };
        let mut names = files.keys();
        let (Some(only), None) = (names.next(), names.next()) else {
            return Err(if files.is_empty() {
                RootError::NoDisk
            } else {
                RootError::SeveralDisks
            });
        };
        let path = tree::shown(&[folder[0].clone(), only.clone()]);
        self.write_file(&path, out)
    }

    /// Writes one of its files.
    ///
    /// # Errors
    /// Any [`RootError`]; what was written is then of no use.
    pub fn write_file(&mut self, path: &str, mut out: impl Write) -> Result<(), RootError> {
        let names: Vec<Name> = path.split('/').map(|name| name.as_bytes().to_vec()).collect();
        let found = self
            .tree
            .file(&names)
            .map_err(|error| RootError::Path(path.to_owned(), error))?;
        let found = found.and_then(|content| Some((content, self.layers.get_mut(content.layer)?)));
        let (content, layer) = found.ok_or_else(|| RootError::NoFile(path.to_owned()))?;
        let mut copy = || {
            layer.seek(SeekFrom::Start(content.offset))?;
            io::copy(&mut layer.take(content.size.into()), &mut out)
        };
        match copy().map_err(CpioError::Io)? {
            copied if copied == u64::from(content.size) => Ok(()),
            _ => Err(CpioError::Io(io::ErrorKind::UnexpectedEof.into()).into()),
        }
    }
}

#[cfg(test)]
mod tests;
