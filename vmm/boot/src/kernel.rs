//! From a kernel's file to a kernel in RAM, whichever of these it is:
//!
//! ```text
//!   "\x7fELF"         elf     vmlinux, u-boot.elf
//!   1f 8b             gzip  ─┐
//!   "MZ" … "zimg"     zboot ─┴─► image   (vmlinuz.efi: the kernel packed inside an EFI program)
//!   anything else              ─► image   the riscv64 Image
//! ```
//!
//! The first bytes decide, never the name. Nothing is written outside the room that the caller gives.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use vm_memory::GuestMemoryMmap;

use crate::image::{self, Packed, Unread};
use crate::room::Room;
use crate::{elf, zboot};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ELF: &[u8] = b"\x7fELF";

/// As much of a file as tells what it is.
const START: usize = 64;

/// A kernel in RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// First instruction.
    pub entry: u64,
    /// First byte of it.
    pub start: u64,
    /// First byte behind it and its BSS.
    pub end: u64,
    /// Bytes from the start that came from the file; the rest is its BSS, and zero.
    pub loaded: u64,
    /// What its file was.
    pub form: Form,
}

/// What a kernel's file was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The kernel as it lies in memory.
    Plain,
    /// The same, packed.
    Packed,
    /// Segments with addresses of their own.
    Elf,
}

/// Why a kernel cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file system's word.
    #[error("cannot be read")]
    Io(#[source] io::Error),
    /// A directory or a device.
    #[error("is not a file")]
    NotAFile,
    /// Shorter than a header.
    #[error("is no kernel: it has only {0} bytes")]
    Short(usize),
    /// A kernel, for something else.
    #[error("is {0}, not a riscv64 kernel")]
    Foreign(&'static str),
    /// No kernel known to us.
    #[error(
        "is no riscv64 kernel: neither an Image (its header has no \"RSC\\x05\"), nor gzip, EFI zboot or ELF"
    )]
    Unknown,
    /// A big-endian kernel, or a header that cannot be.
    #[error("has a header that is not valid: {0}")]
    Header(&'static str),
    /// A packing that we cannot undo.
    #[error("is packed with '{0}'; gzip and zstd can be unpacked")]
    Packing(String),
    /// The file ends before its sections do.
    #[error("is truncated: {have} bytes of {want}")]
    Truncated {
        /// Bytes there.
        have: u64,
        /// Bytes that its header names.
        want: u64,
    },
    /// More than RAM.
    #[error("needs {need} bytes of memory; {room} are there")]
    TooLarge {
        /// What the kernel needs.
        need: u64,
        /// What RAM has for it.
        room: u64,
    },
    /// A segment where no RAM is free.
    #[error("wants to be at {from:#x}, where it has no room: memory from {start:#x} to {end:#x} is free", start = .room.start, end = .room.end)]
    Misplaced {
        /// Where it wants to be.
        from: u64,
        /// Where it may be.
        room: Room,
    },
    /// Guest RAM could not be written.
    #[error("cannot be written to guest memory")]
    Memory(#[source] vm_memory::GuestMemoryError),
}

/// Loads the kernel of a file into the room that is free for it.
///
/// # Errors
/// Why not.
pub fn load(path: &Path, memory: &GuestMemoryMmap, room: Room) -> Result<Kernel, KernelError> {
    place(path, memory, room, |file| image::load(file, memory, room))
}

/// The same for a kernel that is only looked at: of one that lies in its file as in memory no more is read than can be wrong.
///
/// # Errors
/// As those of [`load`].
pub fn examine(path: &Path, memory: &GuestMemoryMmap, room: Room) -> Result<Kernel, KernelError> {
    place(path, memory, room, |file| image::load(Unread(file), memory, room))
}

fn place(
    path: &Path,
    memory: &GuestMemoryMmap,
    room: Room,
    plain: impl FnOnce(File) -> Result<Kernel, KernelError>,
) -> Result<Kernel, KernelError> {
    let mut file = open(path)?;
    let start = read_up_to(&mut file, START)?;
    let size = file.metadata().map_err(KernelError::Io)?.len();
    file.seek(SeekFrom::Start(0)).map_err(KernelError::Io)?;
    if start.starts_with(ELF) {
        return elf::load(&mut file, size, memory, room);
    }
    if start.starts_with(GZIP) {
        return packed(MultiGzDecoder::new(file), memory, room);
    }
    let Some(payload) = zboot::parse(&start, size)? else {
        return plain(file);
    };
    file.seek(SeekFrom::Start(payload.offset))
        .map_err(KernelError::Io)?;
    let bytes = file.take(payload.len);
    match payload.packing {
        zboot::Packing::Gzip => packed(MultiGzDecoder::new(bytes), memory, room),
        zboot::Packing::Zstd => packed(zboot::Zstd::new(bytes)?, memory, room),
    }
}

/// Opens what may hold a kernel.
pub(crate) fn open(path: &Path) -> Result<File, KernelError> {
    // Looked at first: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(KernelError::Io)?.is_file() {
        return Err(KernelError::NotAFile);
    }
    File::open(path).map_err(KernelError::Io)
}

fn packed(source: impl Read, memory: &GuestMemoryMmap, room: Room) -> Result<Kernel, KernelError> {
    let kernel = image::load(Packed(source), memory, room)?;
    Ok(Kernel {
        form: Form::Packed,
        ..kernel
    })
}

pub(crate) fn read_up_to(source: &mut impl Read, most: usize) -> Result<Vec<u8>, KernelError> {
    let mut bytes = Vec::new();
    source
        .take(most as u64)
        .read_to_end(&mut bytes)
        .map_err(KernelError::Io)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
