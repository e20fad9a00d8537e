//! What programs ask of disks: zeroes, space given back, and how long it takes to move some blocks.
//!
//! A time is that of the guest's own clock, from before the first block to the end of the last one; writes are synced
//! before it ends.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::str::FromStr;

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::stopwatch::Stopwatch;

/// What a buffer must be aligned to where the kernel's cache is passed by.
const PAGE: usize = 4096;
/// The largest block.
const MAX_BLOCK: usize = 16 << 20;

/// Whether the kernel's cache is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Cached,
    Direct,
}

/// Zeroes a part of a file and syncs it.
pub fn zero(path: &str, offset: &str, length: &str) -> Result<String, String> {
    allocate(FallocateFlags::ZERO_RANGE, path, offset, length)
}

/// Gives back the space of a part of a file and syncs it.
pub fn unmap(path: &str, offset: &str, length: &str) -> Result<String, String> {
    allocate(FallocateFlags::PUNCH_HOLE, path, offset, length)
}

fn allocate(how: FallocateFlags, path: &str, offset: &str, length: &str) -> Result<String, String> {
    let file = open(path, OpenOptions::new().write(true))?;
    let flags = how | FallocateFlags::KEEP_SIZE;
    fallocate(&file, flags, number(offset)?, number(length)?).map_err(failed("zero", path))?;
    file.sync_all().map_err(failed("sync", path))?;
    Ok("zero ok".to_owned())
}

/// Reads so many blocks from a file's start.
pub fn read(path: &str, block: &str, count: &str, way: Way) -> Result<String, String> {
    let mut file = open(path, OpenOptions::new().read(true).custom_flags(flags(way)?))?;
    moved(block, count, |block, count| {
        for _ in 0..count {
            file.read_exact(block).map_err(failed("read", path))?;
        }
        Ok(())
    })
}

/// Writes so many blocks from a file's start.
pub fn write(path: &str, block: &str, count: &str, way: Way) -> Result<String, String> {
    let mut file = open(path, OpenOptions::new().write(true).custom_flags(flags(way)?))?;
    moved(block, count, |block, count| {
        for _ in 0..count {
            file.write_all(block).map_err(failed("write", path))?;
        }
        file.sync_data().map_err(failed("sync", path))
    })
}

/// Times what is done with a block: `moved 4096 bytes in 12345 ns`.
fn moved(
    block: &str,
    count: &str,
    act: impl FnOnce(&mut [u8], usize) -> Result<(), String>,
) -> Result<String, String> {
    let (size, count): (usize, usize) = (number(block)?, number(count)?);
    let bytes = size.checked_mul(count).filter(|_| size <= MAX_BLOCK);
    let bytes = bytes.ok_or_else(|| format!("{count} blocks of {size} bytes are too many"))?;
    let mut space = vec![0x5a; size + PAGE];
    let from = space.as_ptr().align_offset(PAGE);
    let block = space
        .get_mut(from..from + size)
        .ok_or("no page begins in a buffer")?;
    let clock = |error| format!("no clock: {error}");
    let start = Stopwatch::start().map_err(clock)?;
    act(block, count)?;
    let took = start.elapsed().map_err(clock)?;
    Ok(format!("moved {bytes} bytes in {} ns", took.as_nanos()))
}

fn flags(way: Way) -> Result<i32, String> {
    match way {
        Way::Cached => Ok(0),
        Way::Direct => i32::try_from(OFlags::DIRECT.bits()).map_err(|error| error.to_string()),
    }
}

fn open(path: &str, how: &OpenOptions) -> Result<File, String> {
    how.open(path).map_err(failed("open", path))
}

fn failed<E: Display>(what: &'static str, path: &str) -> impl Fn(E) -> String {
    move |error| format!("cannot {what} {path}: {error}")
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_are_moved_are_counted_and_timed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let said = write(path, "512", "3", Way::Cached).unwrap();
        assert!(said.starts_with("moved 1536 bytes in "), "{said}");
        assert_eq!(std::fs::read(path).unwrap(), [0x5a; 1536]);
        assert!(read(path, "1536", "1", Way::Cached).is_ok());
    }

    #[test]
    fn blocks_that_are_not_there_and_numbers_that_are_none_are_errors() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(
            read(path, "512", "1", Way::Cached)
                .unwrap_err()
                .starts_with("cannot read")
        );
        assert_eq!(read(path, "x", "1", Way::Cached).unwrap_err(), "x is no number");
        assert!(read(path, "4096", "18446744073709551615", Way::Cached).is_err());
    }
}
