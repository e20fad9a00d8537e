//! The initial RAM disk: bytes in the highest room that is free for them.

use std::fs::File;
use std::io;
use std::path::Path;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::room::{Places, Room};

/// Why an initrd cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// The file system's word.
    #[error("cannot be read")]
    Io(#[source] io::Error),
    /// A directory or a device.
    #[error("is not a file")]
    NotAFile,
    /// Empty: the kernel would look for a root elsewhere, without a word.
    #[error("is empty")]
    Empty,
    /// More than RAM has besides kernel and device tree.
    #[error("has {need} bytes; {room} are left in memory besides the kernel: give the guest more memory")]
    TooLarge {
        /// The file's length.
        need: u64,
        /// What is left.
        room: u64,
    },
    /// Guest RAM could not be written.
    #[error("cannot be written to guest memory")]
    Memory(#[source] vm_memory::GuestMemoryError),
}

/// Loads a file as high as it goes.
///
/// # Errors
/// Why not.
pub fn load(path: &Path, memory: &GuestMemoryMmap, places: &mut Places) -> Result<Room, InitrdError> {
    let (mut file, place) = open(path, places)?;
    let len = usize::try_from(place.len()).map_err(|error| InitrdError::Io(io::Error::other(error)))?;
    memory
        .read_exact_volatile_from(GuestAddress(place.start), &mut file, len)
        .map_err(InitrdError::Memory)?;
    Ok(place)
}

/// Finds the place of a file that somebody else will load.
///
/// # Errors
/// As those of [`load`].
pub fn examine(path: &Path, places: &mut Places) -> Result<Room, InitrdError> {
    open(path, places).map(|(_, place)| place)
}

fn open(path: &Path, places: &mut Places) -> Result<(File, Room), InitrdError> {
    // Looked at first: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(InitrdError::Io)?.is_file() {
        return Err(InitrdError::NotAFile);
    }
    let file = File::open(path).map_err(InitrdError::Io)?;
    let need = file.metadata().map_err(InitrdError::Io)?.len();
    if need == 0 {
        return Err(InitrdError::Empty);
    }
    let place = places.highest(need);
    let place = place.map_err(|room| InitrdError::TooLarge { need, room })?;
    Ok((file, place))
}
