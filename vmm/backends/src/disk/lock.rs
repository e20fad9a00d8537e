//! Keeps two machines from writing one image.
//!
//! The locks are QEMU's, so that its machines and `qemu-img` are kept out as well, and we by them. Each lock is on a byte
//! that stands for something (`block/file-posix.c` and `BLK_PERM_*` of QEMU), held on the open file and so lost with it:
//!
//! | byte | held by |
//! | --- | --- |
//! | 100 | who reads |
//! | 101 | who writes |
//! | 201 | who does not want others to write |
//!
//! QEMU takes shared locks and then looks for others' on the opposite byte. Against us, who as the writer hold all bytes
//! alone, that comes to the same.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

const READS: i64 = 100;
const WRITES: i64 = 101;
const OTHERS_MUST_NOT_WRITE: i64 = 201;

/// Up to here the bytes have a meaning.
const END: i64 = 300;

/// Locks an image for one writer, or for readers; false when someone else is in the way.
///
/// # Errors
/// The file system's, when it knows no locks.
pub(crate) fn lock(file: &File, read_only: bool) -> io::Result<bool> {
    if !read_only {
        return set(file, libc::F_WRLCK, READS, END - READS);
    }
    let shared = set(file, libc::F_RDLCK, READS, 1)? && set(file, libc::F_RDLCK, OTHERS_MUST_NOT_WRITE, 1)?;
    // Held first, looked for after: of a reader and a writer who come at once, at least one sees the other.
    Ok(shared && !is_held(file, WRITES)?)
}

fn set(file: &File, kind: i32, start: i64, length: i64) -> io::Result<bool> {
    match call(file, libc::F_OFD_SETLK, &mut record(kind, start, length)) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_held(file: &File, byte: i64) -> io::Result<bool> {
    let mut record = record(libc::F_WRLCK, byte, 1);
    call(file, libc::F_OFD_GETLK, &mut record)?;
    Ok(i32::from(record.l_type) != libc::F_UNLCK)
}

fn record(kind: i32, start: i64, length: i64) -> libc::flock64 {
    libc::flock64 {
        l_type: libc::c_short::try_from(kind).expect("lock kinds are small numbers"),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).expect("zero"),
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

fn call(file: &File, command: i32, record: &mut libc::flock64) -> io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "neither std nor rustix offer locks on byte ranges of an open file"
    )]
    // SAFETY: the commands used here take a `struct flock`, which lives and is ours alone during the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(record)) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A shared lock, as QEMU takes them.
#[cfg(test)]
pub(super) fn shared(file: &File, byte: i64) -> io::Result<bool> {
    set(file, libc::F_RDLCK, byte, 1)
}
