//! An image's layers, applied in order, as one archive that Linux unpacks into the root of its RAM disk.
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
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::cpio::{self, CpioError};
use super::layer::{self, LayerError};
use super::layout::{Image, Layout, LayoutError, MAX_UNPACKED};
use super::tree::Tree;

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
    /// No room to work in.
    #[error("'{0}' has no room for the image's layers")]
    Scratch(PathBuf, #[source] io::Error),
}

/// Writes the image's root file system; its unpacked layers lie in unnamed files of `scratch` meanwhile.
///
/// # Errors
/// Any [`RootError`]; what was written is then of no use.
pub fn write(layout: &Layout, image: &Image, scratch: &Path, out: impl Write) -> Result<(), RootError> {
    let mut tree = Tree::default();
    let mut archives: Vec<File> = Vec::new();
    let mut room = MAX_UNPACKED;
    for (number, blob) in image.layers.iter().enumerate() {
        let no_room = |error| RootError::Scratch(scratch.to_owned(), error);
        let mut archive = tempfile::tempfile_in(scratch).map_err(no_room)?;
        room -= layout.unpack(blob, room, &mut archive)?;
        io::Seek::rewind(&mut archive).map_err(no_room)?;
        layer::apply(&mut tree, number, &archive).map_err(|error| RootError::Layer(number, error))?;
        archives.push(archive);
    }
    Ok(cpio::write(&tree, &mut archives, out)?)
}

#[cfg(test)]
mod tests;
