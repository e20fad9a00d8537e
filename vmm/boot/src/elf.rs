//! ELF kernels: `vmlinux`, `u-boot.elf`. (linux-loader's ELF part is there on x86 alone.)
//!
//! Linux links its segments to physical address 0 and upwards, since it runs wherever it is; such a kernel goes to
//! where an Image would. One whose segments name RAM goes there.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::kernel::{Form, Kernel, KernelError, read_up_to};
use crate::room::Room;

const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Program headers that are read; kernels have fewer than ten.
const MAX_PROGRAM_HEADERS: u16 = 64;

const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u16 = 2;
const RISCV: u16 = 243;
const LOAD: u32 = 1;

struct Header {
    entry: u64,
    table: u64,
    count: u16,
}

/// A part of the file with a place in memory.
#[derive(Debug, Clone, Copy)]
struct Segment {
    offset: u64,
    virt: u64,
    phys: u64,
    in_file: u64,
    in_memory: u64,
}

/// Loads an ELF kernel whose file has `size` bytes.
///
/// # Errors
/// Why not; nothing has been written then, unless reading itself failed.
pub fn load(file: &mut File, size: u64, memory: &GuestMemoryMmap, room: Room) -> Result<Kernel, KernelError> {
    let header = parse(&read_up_to(file, HEADER)?)?;
    file.seek(SeekFrom::Start(header.table))
        .map_err(KernelError::Io)?;
    let table = read_up_to(file, usize::from(header.count) * PROGRAM_HEADER)?;
    let mut segments = segments(&table, header.count, size)?;
    let lowest = segments.iter().map(|segment| segment.phys).min();
    let lowest = lowest.ok_or(KernelError::Header("it has nothing to load"))?;
    let shift = if lowest < room.start { room.start } else { 0 };
    for segment in &mut segments {
        segment.phys = segment
            .phys
            .checked_add(shift)
            .ok_or(KernelError::Header("an address wraps around"))?;
        if !room.holds(segment.phys, segment.in_memory) {
            return Err(KernelError::Misplaced {
                from: segment.phys,
                room,
            });
        }
    }
    check_overlap(&mut segments)?;
    let entry = physical(header.entry, shift, &segments)
        .ok_or(KernelError::Header("its entry lies in no segment"))?;
    for segment in &segments {
        pour(file, segment, memory)?;
    }
    let end = |len: fn(&Segment) -> u64| {
        segments
            .iter()
            .map(|one| one.phys + len(one))
            .max()
            .unwrap_or(entry)
    };
    let start = lowest + shift;
    Ok(Kernel {
        entry,
        start,
        end: end(|segment| segment.in_memory),
        loaded: end(|segment| segment.in_file) - start,
        form: Form::Elf,
    })
}

fn parse(bytes: &[u8]) -> Result<Header, KernelError> {
    let short = || KernelError::Short(bytes.len());
    let class = bytes.get(4..6).ok_or_else(short)?;
    let (kind, machine) = (
        u16_at(bytes, 16).ok_or_else(short)?,
        u16_at(bytes, 18).ok_or_else(short)?,
    );
    if class != [CLASS_64, LITTLE_ENDIAN] || machine != RISCV {
        return Err(KernelError::Foreign("an ELF file for another machine"));
    }
    if kind != EXECUTABLE {
        return Err(KernelError::Foreign("an ELF file that is no executable"));
    }
    let header = Header {
        entry: u64_at(bytes, 24).ok_or_else(short)?,
        table: u64_at(bytes, 32).ok_or_else(short)?,
        count: u16_at(bytes, 56).ok_or_else(short)?,
    };
    if u16_at(bytes, 54).map(usize::from) != Some(PROGRAM_HEADER) {
        return Err(KernelError::Header("its program headers have an unknown size"));
    }
    if header.count > MAX_PROGRAM_HEADERS {
        return Err(KernelError::Header("it has more than 64 program headers"));
    }
    Ok(header)
}

fn segments(table: &[u8], count: u16, size: u64) -> Result<Vec<Segment>, KernelError> {
    let want = usize::from(count) * PROGRAM_HEADER;
    if table.len() < want {
        let (have, want) = (table.len() as u64, want as u64);
        return Err(KernelError::Truncated { have, want });
    }
    let mut segments = Vec::new();
    for entry in table.chunks_exact(PROGRAM_HEADER) {
        let field = |at| u64_at(entry, at).unwrap_or_default();
        let segment = Segment {
            offset: field(8),
            virt: field(16),
            phys: field(24),
            in_file: field(32),
            in_memory: field(40),
        };
        if u32_at(entry, 0) != Some(LOAD) || segment.in_memory == 0 {
            continue;
        }
        if segment.in_file > segment.in_memory {
            return Err(KernelError::Header(
                "a segment is longer in the file than in memory",
            ));
        }
        let want = segment
            .offset
            .checked_add(segment.in_file)
            .ok_or(KernelError::Header("a segment wraps around"))?;
        if want > size {
            return Err(KernelError::Truncated { have: size, want });
        }
        segments.push(segment);
    }
    Ok(segments)
}

/// Sorts by address; each must end before the next one begins.
fn check_overlap(segments: &mut [Segment]) -> Result<(), KernelError> {
    segments.sort_by_key(|segment| segment.phys);
    let overlaps = segments
        .array_windows()
        .any(|[one, next]| one.phys + one.in_memory > next.phys);
    if overlaps {
        return Err(KernelError::Header("its segments overlap"));
    }
    Ok(())
}

/// The entry is a virtual address where the segments have such, as Linux's; firmware's is the physical one.
fn physical(entry: u64, shift: u64, segments: &[Segment]) -> Option<u64> {
    let within =
        |start: u64, one: &Segment| entry.checked_sub(start).filter(|&offset| offset < one.in_memory);
    let by_virtual = segments
        .iter()
        .find_map(|one| Some(one.phys + within(one.virt, one)?));
    by_virtual.or_else(|| {
        segments
            .iter()
            .find_map(|one| Some(one.phys + within(one.phys - shift, one)?))
    })
}

fn pour(file: &mut File, segment: &Segment, memory: &GuestMemoryMmap) -> Result<(), KernelError> {
    file.seek(SeekFrom::Start(segment.offset))
        .map_err(KernelError::Io)?;
    let len =
        usize::try_from(segment.in_file).map_err(|error| KernelError::Io(std::io::Error::other(error)))?;
    memory
        .read_exact_volatile_from(GuestAddress(segment.phys), file, len)
        .map_err(KernelError::Memory)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}
