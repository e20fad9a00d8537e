//! EFI zboot: a kernel packed inside an EFI program (Linux, drivers/firmware/efi/libstub/zboot-header.S).

use std::io::{self, Read};

use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::StreamingDecoder;

use crate::kernel::KernelError;

const MAGIC: &[u8] = b"zimg";
const MAGIC_AT: usize = 4;
const OFFSET_AT: usize = 8;
const SIZE_AT: usize = 12;
const PACKING_AT: usize = 24;
/// The name of the packing has this much room, its NUL included.
const PACKING_LEN: usize = 32;

/// Where the packed kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// From the file's start.
    pub offset: u64,
    /// In bytes.
    pub len: u64,
    /// How to undo it.
    pub packing: Packing,
}

/// How a kernel is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// One zstd frame, unpacked on the way.
pub struct Zstd<R: Read>(StreamingDecoder<R, FrameDecoder>);

/// Reads the header; `None` if the bytes are no zboot program.
///
/// # Errors
/// A header that does not fit a file of this size, or a packing that we cannot undo.
pub fn parse(start: &[u8], size: u64) -> Result<Option<Payload>, KernelError> {
    if start.get(..2) != Some(b"MZ") || start.get(MAGIC_AT..MAGIC_AT + MAGIC.len()) != Some(MAGIC) {
        return Ok(None);
    }
    let word = |at: usize| {
        let bytes = start.get(at..).and_then(|rest| rest.first_chunk()).copied();
        bytes
            .map(u32::from_le_bytes)
            .ok_or(KernelError::Short(start.len()))
    };
    let (offset, len) = (u64::from(word(OFFSET_AT)?), u64::from(word(SIZE_AT)?));
    let name = start.get(PACKING_AT..PACKING_AT + PACKING_LEN);
    let name = name.ok_or(KernelError::Short(start.len()))?;
    let packing = match name.split(|&byte| byte == 0).next().unwrap_or_default() {
        b"gzip" => Packing::Gzip,
        b"zstd" | b"zstd22" => Packing::Zstd,
        other => return Err(KernelError::Packing(other.escape_ascii().to_string())),
    };
    let want = offset + len;
    if size < want {
        return Err(KernelError::Truncated { have: size, want });
    }
    Ok(Some(Payload { offset, len, packing }))
}

// === impl Zstd ===

impl<R: Read> Zstd<R> {
    /// Reads the frame's header.
    ///
    /// # Errors
    /// No frame, or one that wants more memory for its window than any kernel's.
    pub fn new(source: R) -> Result<Self, KernelError> {
        let decoder = StreamingDecoder::new(source);
        Ok(Self(
            decoder.map_err(|error| KernelError::Io(io::Error::other(error)))?,
        ))
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}
