//! Kernels: the riscv64 `Image` (Linux, Documentation/arch/riscv/boot-image-header.rst), plain or gzip'd.
//!
//! linux-loader's `pe` module reads this header too, but only on arm64 and riscv64, and takes the file's length for
//! the kernel's end, which leaves its BSS to the next thing that is loaded.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{KERNEL_OFFSET, pe};

/// Length of the header.
pub const HEADER: usize = 64;

const MAGIC2: &[u8] = b"RSC\x05";
const GZIP: &[u8] = &[0x1f, 0x8b];
const PIECE: usize = 256 << 10;

/// The header, as far as a loader needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Where the kernel wants to be, from the start of RAM.
    pub text_offset: u64,
    /// What the kernel needs from its start, its BSS included.
    pub image_size: u64,
}

/// A kernel in RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// First instruction.
    pub entry: u64,
    /// First byte behind the kernel and its BSS.
    pub end: u64,
    /// Bytes of it that came from the file; the rest is its BSS, and zero.
    pub loaded: u64,
}

/// Why a kernel cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
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
    #[error("is {0}, not a riscv64 Image")]
    Foreign(&'static str),
    /// No kernel known to us.
    #[error("is no riscv64 Image (its header has no \"RSC\\x05\")")]
    Unknown,
    /// A big-endian kernel, or a header that cannot be.
    #[error("has a header that is not valid: {0}")]
    Header(&'static str),
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
    /// Guest RAM could not be written.
    #[error("cannot be written to guest memory")]
    Memory(#[source] vm_memory::GuestMemoryError),
}

/// Loads the kernel of a file into the RAM from `base`; nothing of it may reach `limit`.
///
/// # Errors
/// Why not.
pub fn load(path: &Path, memory: &GuestMemoryMmap, base: u64, limit: u64) -> Result<Kernel, ImageError> {
    // Looked at first: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(ImageError::Io)?.is_file() {
        return Err(ImageError::NotAFile);
    }
    let mut file = File::open(path).map_err(ImageError::Io)?;
    let start = read_up_to(&mut file, GZIP.len())?;
    file.seek(SeekFrom::Start(0)).map_err(ImageError::Io)?;
    if start == GZIP {
        read_kernel(Packed(MultiGzDecoder::new(file)), memory, base, limit)
    } else {
        read_kernel(file, memory, base, limit)
    }
}

/// Reads the header's fields out of the first bytes of a kernel.
///
/// # Errors
/// What the bytes are instead of a riscv64 Image.
pub fn parse(start: &[u8]) -> Result<Header, ImageError> {
    if let Some(kind) = foreign(start) {
        return Err(ImageError::Foreign(kind));
    }
    let header: &[u8; HEADER] = start.first_chunk().ok_or(ImageError::Short(start.len()))?;
    let quad = |at: usize| {
        let bytes = header.get(at..).and_then(|rest| rest.first_chunk()).copied();
        bytes.map_or(0, u64::from_le_bytes)
    };
    if header.get(56..60) != Some(MAGIC2) {
        return Err(ImageError::Unknown);
    }
    let (text_offset, image_size, flags) = (quad(8), quad(16), quad(24));
    if flags & 1 == 1 {
        return Err(ImageError::Header("the kernel is big-endian"));
    }
    if image_size == 0 {
        return Err(ImageError::Header("image_size is 0"));
    }
    if !text_offset.is_multiple_of(KERNEL_OFFSET) {
        return Err(ImageError::Header("text_offset is no multiple of 2 MiB"));
    }
    Ok(Header {
        text_offset,
        image_size,
    })
}

fn foreign(start: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| start.get(offset..offset + magic.len()) == Some(magic);
    if at(0, b"\x7fELF") {
        return Some("an ELF file");
    }
    if at(56, b"ARM\x64") {
        return Some("an arm64 Image");
    }
    if at(0x202, b"HdrS") {
        return Some("an x86 bzImage");
    }
    at(4, b"zimg").then_some("an EFI zboot image")
}

/// Where a kernel's bytes come from.
trait Source: Read {
    /// Moves up to `room` bytes to `address`, all there are if they fit; says how many.
    fn pour(&mut self, memory: &GuestMemoryMmap, address: GuestAddress, room: u64)
    -> Result<u64, ImageError>;
}

/// A kernel that is unpacked on the way.
struct Packed(MultiGzDecoder<File>);

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Source for Packed {
    fn pour(
        &mut self,
        memory: &GuestMemoryMmap,
        address: GuestAddress,
        room: u64,
    ) -> Result<u64, ImageError> {
        let mut piece = vec![0; PIECE];
        let mut poured = 0;
        while poured < room {
            let most = usize::try_from(room - poured).map_or(PIECE, |left| left.min(PIECE));
            let count = match self.0.read(piece.get_mut(..most).unwrap_or_default()) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ImageError::Io(error)),
            };
            let bytes = piece.get(..count).unwrap_or_default();
            let at = GuestAddress(address.0 + poured);
            memory.write_slice(bytes, at).map_err(ImageError::Memory)?;
            poured += count as u64;
        }
        Ok(poured)
    }
}

impl Source for File {
    /// Straight from the page cache into guest RAM.
    fn pour(
        &mut self,
        memory: &GuestMemoryMmap,
        address: GuestAddress,
        room: u64,
    ) -> Result<u64, ImageError> {
        let mut poured = 0;
        while poured < room {
            let left = usize::try_from(room - poured).unwrap_or(usize::MAX);
            let at = GuestAddress(address.0 + poured);
            match memory
                .read_volatile_from(at, self, left)
                .map_err(ImageError::Memory)?
            {
                0 => break,
                count => poured += count as u64,
            }
        }
        Ok(poured)
    }
}

/// Streams a kernel into RAM: header first, so that nothing is written of what cannot be booted.
fn read_kernel(
    mut source: impl Source,
    memory: &GuestMemoryMmap,
    base: u64,
    limit: u64,
) -> Result<Kernel, ImageError> {
    let head = read_up_to(&mut source, pe::MAX_HEADERS)?;
    let header = parse(&head)?;
    // Kernels from before the offset said so want 2 MiB, too: what lies below is firmware's.
    let offset = header.text_offset.max(KERNEL_OFFSET);
    let room = limit.saturating_sub(base.saturating_add(offset));
    let need = header.image_size;
    if need > room {
        return Err(ImageError::TooLarge { need, room });
    }
    let entry = base + offset;
    let mut have = head.len() as u64;
    if have > room {
        return Err(ImageError::TooLarge { need: have, room });
    }
    memory
        .write_slice(&head, GuestAddress(entry))
        .map_err(ImageError::Memory)?;
    have += source.pour(memory, GuestAddress(entry + have), room - have)?;
    // The file may be longer than image_size says; it may not be longer than RAM.
    if !read_up_to(&mut source, 1)?.is_empty() {
        return Err(ImageError::TooLarge { need: have + 1, room });
    }
    match pe::file_size(&head) {
        Some(want) if have < want => Err(ImageError::Truncated { have, want }),
        _ => Ok(Kernel {
            entry,
            end: entry + header.image_size.max(have),
            loaded: have,
        }),
    }
}

fn read_up_to(source: &mut impl Read, most: usize) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    source
        .take(most as u64)
        .read_to_end(&mut bytes)
        .map_err(ImageError::Io)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
