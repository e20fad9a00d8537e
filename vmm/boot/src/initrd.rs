//! The initial RAM disk: bytes below the device tree, above the kernel.

use std::fs::File;
use std::io;
use std::path::Path;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const PAGE: u64 = 4096;

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
    /// More than RAM has between kernel and device tree.
    #[error("has {need} bytes; {room} are left in memory besides the kernel")]
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

/// Loads a file as high as it goes between `floor` and `ceiling`; gives its first and last-plus-one address.
///
/// # Errors
/// Why not.
pub fn load(
    path: &Path,
    memory: &GuestMemoryMmap,
    floor: u64,
    ceiling: u64,
) -> Result<(u64, u64), InitrdError> {
    // Looked at first: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(InitrdError::Io)?.is_file() {
        return Err(InitrdError::NotAFile);
    }
    let mut file = File::open(path).map_err(InitrdError::Io)?;
    let need = file.metadata().map_err(InitrdError::Io)?.len();
    if need == 0 {
        return Err(InitrdError::Empty);
    }
    let floor = floor.next_multiple_of(PAGE);
    let room = ceiling.saturating_sub(floor);
    let start = ceiling
        .checked_sub(need)
        .map(|start| start & !(PAGE - 1))
        .filter(|&start| start >= floor);
    let start = start.ok_or(InitrdError::TooLarge { need, room })?;
    let len = usize::try_from(need).map_err(|error| InitrdError::Io(io::Error::other(error)))?;
    memory
        .read_exact_volatile_from(GuestAddress(start), &mut file, len)
        .map_err(InitrdError::Memory)?;
    Ok((start, start + need))
}
