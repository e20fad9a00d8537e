//! The riscv64 `Image` (Linux, Documentation/arch/riscv/boot-image-header.rst), as it is or unpacked on the way.
//!
//! linux-loader's `pe` module reads this header too, but only on arm64 and riscv64, and takes the file's length for
//! the kernel's end, which leaves its BSS to the next thing that is loaded.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::kernel::{Form, Kernel, KernelError, read_up_to};
use crate::room::Room;
use crate::{RAM_BASE, pe};

/// Length of the header.
pub const HEADER: usize = 64;

const MAGIC2: &[u8] = b"RSC\x05";
/// A kernel lies at a multiple of this.
const ALIGNMENT: u64 = 0x20_0000;
const PIECE: usize = 256 << 10;

/// The header, as far as a loader needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Where the kernel wants to be, from the start of RAM.
    pub text_offset: u64,
    /// What the kernel needs from its start, its BSS included.
    pub image_size: u64,
}

/// Reads the header's fields out of the first bytes of a kernel.
///
/// # Errors
/// What the bytes are instead of a riscv64 Image.
pub fn parse(start: &[u8]) -> Result<Header, KernelError> {
    if let Some(kind) = foreign(start) {
        return Err(KernelError::Foreign(kind));
    }
    let header: &[u8; HEADER] = start.first_chunk().ok_or(KernelError::Short(start.len()))?;
    let quad = |at: usize| {
        let bytes = header.get(at..).and_then(|rest| rest.first_chunk()).copied();
        bytes.map_or(0, u64::from_le_bytes)
    };
    if header.get(56..60) != Some(MAGIC2) {
        return Err(KernelError::Unknown);
    }
    let (text_offset, image_size, flags) = (quad(8), quad(16), quad(24));
    if flags & 1 == 1 {
        return Err(KernelError::Header("the kernel is big-endian"));
    }
    if image_size == 0 {
        return Err(KernelError::Header("image_size is 0"));
    }
    if !text_offset.is_multiple_of(ALIGNMENT) {
        return Err(KernelError::Header("text_offset is no multiple of 2 MiB"));
    }
    Ok(Header {
        text_offset,
        image_size,
    })
}

fn foreign(start: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| start.get(offset..offset + magic.len()) == Some(magic);
    if at(56, b"ARM\x64") {
        return Some("an arm64 Image");
    }
    at(0x202, b"HdrS").then_some("an x86 bzImage")
}

/// Where a kernel's bytes come from.
pub trait Source: Read {
    /// Moves up to `room` bytes to `address`, all there are if they fit; says how many.
    fn pour(
        &mut self,
        memory: &GuestMemoryMmap,
        address: GuestAddress,
        room: u64,
    ) -> Result<u64, KernelError>;
}

/// A kernel that is unpacked on the way.
pub struct Packed<R>(pub R);

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Source for Packed<R> {
    fn pour(
        &mut self,
        memory: &GuestMemoryMmap,
        address: GuestAddress,
        room: u64,
    ) -> Result<u64, KernelError> {
        let mut piece = vec![0; PIECE];
        let mut poured = 0;
        while poured < room {
            let most = usize::try_from(room - poured).map_or(PIECE, |left| left.min(PIECE));
            let count = match self.0.read(piece.get_mut(..most).unwrap_or_default()) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(KernelError::Io(error)),
            };
            let bytes = piece.get(..count).unwrap_or_default();
            let at = GuestAddress(address.0 + poured);
            memory.write_slice(bytes, at).map_err(KernelError::Memory)?;
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
    ) -> Result<u64, KernelError> {
        let mut poured = 0;
        while poured < room {
            let left = usize::try_from(room - poured).unwrap_or(usize::MAX);
            let at = GuestAddress(address.0 + poured);
            match memory
                .read_volatile_from(at, self, left)
                .map_err(KernelError::Memory)?
            {
                0 => break,
                count => poured += count as u64,
            }
        }
        Ok(poured)
    }
}

/// A kernel whose file somebody else will load: only what can be wrong in it is read.
pub struct Unread(pub File);

impl Read for Unread {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Source for Unread {
    /// Passes over as many bytes as would be moved.
    fn pour(
        &mut self,
        _memory: &GuestMemoryMmap,
        _address: GuestAddress,
        room: u64,
    ) -> Result<u64, KernelError> {
        let size = self.0.metadata().map_err(KernelError::Io)?.len();
        let at = self.0.stream_position().map_err(KernelError::Io)?;
        let passed = size.saturating_sub(at).min(room);
        self.0
            .seek(SeekFrom::Start(at + passed))
            .map_err(KernelError::Io)?;
        Ok(passed)
    }
}

/// Streams a kernel into RAM: header first, so that nothing is written of what cannot be booted. It lies as far from
/// RAM's start as its header says, at the least where the room begins.
///
/// # Errors
/// Why not.
pub fn load(mut source: impl Source, memory: &GuestMemoryMmap, place: Room) -> Result<Kernel, KernelError> {
    let head = read_up_to(&mut source, pe::MAX_HEADERS)?;
    let header = parse(&head)?;
    let entry = place.start.max(RAM_BASE.saturating_add(header.text_offset));
    let room = place.end.saturating_sub(entry);
    let need = header.image_size;
    if need > room {
        return Err(KernelError::TooLarge { need, room });
    }
    let mut have = head.len() as u64;
    if have > room {
        return Err(KernelError::TooLarge { need: have, room });
    }
    memory
        .write_slice(&head, GuestAddress(entry))
        .map_err(KernelError::Memory)?;
    have += source.pour(memory, GuestAddress(entry + have), room - have)?;
    // The file may be longer than image_size says; it may not be longer than RAM.
    if !read_up_to(&mut source, 1)?.is_empty() {
        return Err(KernelError::TooLarge { need: have + 1, room });
    }
    match pe::file_size(&head) {
        Some(want) if have < want => Err(KernelError::Truncated { have, want }),
        _ => Ok(Kernel {
            entry,
            start: entry,
            end: entry + header.image_size.max(have),
            loaded: have,
            form: Form::Plain,
        }),
    }
}
