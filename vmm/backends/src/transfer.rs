//! Between guest memory and descriptors, without a copy in between.
//!
//! Guest memory may change at any moment, so it must never be seen as a Rust slice: its addresses go to the kernel as
//! they are. This is the one file that does so.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;
use vm_memory::volatile_memory::PtrGuardMut;

/// Most parts that the kernel takes at once (`UIO_MAXIOV`).
const MAX_PARTS: usize = 1024;

/// Most bytes of one write through the host's cache. For each page of a file whose cache may have large pages, and has
/// small ones, Linux first probes all that is left of the call's buffers (`fault_in_iov_iter_readable`): the work grows
/// with the square of the call's length, and is more than that of copying where it is some hundred KiB.
pub(crate) const MAX_CACHED_WRITE: usize = 64 << 10;

/// Fills all buffers from this offset on.
///
/// # Errors
/// The file's, and [`io::ErrorKind::UnexpectedEof`] when it is shorter.
pub(crate) fn read_at(fd: BorrowedFd<'_>, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
    whole(offset, buffers, usize::MAX, |parts, count, at| {
        #[expect(unsafe_code, reason = "only the kernel may touch guest memory by its address")]
        // SAFETY: `whole` vouches for the parts, and the kernel writes nowhere else.
        unsafe {
            libc::preadv64(fd.as_raw_fd(), parts, count, at)
        }
    })
}

/// Writes all buffers from this offset on.
///
/// # Errors
/// The file's.
pub(crate) fn write_at(fd: BorrowedFd<'_>, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
    whole(offset, buffers, MAX_CACHED_WRITE, |parts, count, at| {
        #[expect(unsafe_code, reason = "only the kernel may touch guest memory by its address")]
        // SAFETY: `whole` vouches for the parts, which the kernel only reads.
        unsafe {
            libc::pwritev64(fd.as_raw_fd(), parts, count, at)
        }
    })
}

/// Writes a header of ours and all buffers as one message; what keeps messages apart takes it whole or not at all.
/// Returns how many bytes went.
///
/// # Errors
/// The descriptor's.
pub(crate) fn send(fd: BorrowedFd<'_>, header: &[u8], buffers: &[VolatileSlice<'_>]) -> io::Result<usize> {
    if buffers.len() >= MAX_PARTS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut parts = Parts::of(buffers, 0, usize::MAX);
    parts.iovecs.insert(
        0,
        libc::iovec {
            // The kernel only reads it.
            iov_base: header.as_ptr().cast_mut().cast(),
            iov_len: header.len(),
        },
    );
    // The descriptor has no offset, and a message that was cut is lost: there is nothing to go on with.
    parts.call(|parts, count| {
        #[expect(unsafe_code, reason = "only the kernel may touch guest memory by its address")]
        // SAFETY: `Parts::call` vouches for the parts, and the header outlives this; the kernel only reads them.
        unsafe {
            libc::writev(fd.as_raw_fd(), parts, count)
        }
    })
}

/// Calls until all is transferred, each time with what is left, but at most `most` bytes. The parts that `call` gets are valid, writable and
/// `count` many.
fn whole(
    offset: u64,
    buffers: &[VolatileSlice<'_>],
    most: usize,
    call: impl Fn(*const libc::iovec, libc::c_int, i64) -> isize,
) -> io::Result<()> {
    let total: usize = buffers.iter().map(VolatileSlice::len).sum();
    let mut done = 0;
    while done < total {
        let at = offset
            .checked_add(done as u64)
            .and_then(|at| i64::try_from(at).ok());
        let at = at.ok_or(io::ErrorKind::InvalidInput)?;
        match Parts::of(buffers, done, most).call(|parts, count| call(parts, count, at)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Buffers as the kernel takes them. The guards keep the memory mapped while the addresses are in use.
struct Parts {
    iovecs: Vec<libc::iovec>,
    _guards: Vec<PtrGuardMut>,
}

// === impl Parts ===

impl Parts {
    /// What is left of the buffers after `skip` bytes, as far as one call takes it, and at most `most` bytes.
    fn of(buffers: &[VolatileSlice<'_>], mut skip: usize, mut most: usize) -> Self {
        let mut guards = Vec::with_capacity(buffers.len().min(MAX_PARTS));
        for buffer in buffers {
            let skipped = skip.min(buffer.len());
            let taken = most.min(buffer.len() - skipped);
            let Ok(part) = buffer.subslice(skipped, taken) else {
                break;
            };
            skip -= skipped;
            most -= taken;
            if !part.is_empty() {
                guards.push(part.ptr_guard_mut());
            }
            if guards.len() == MAX_PARTS || most == 0 {
                break;
            }
        }
        let iovec = |guard: &PtrGuardMut| libc::iovec {
            iov_base: guard.as_ptr().cast(),
            iov_len: guard.len(),
        };
        Self {
            iovecs: guards.iter().map(iovec).collect(),
            _guards: guards,
        }
    }

    /// The parts are valid for as long as `call` runs.
    fn call(&self, call: impl FnOnce(*const libc::iovec, libc::c_int) -> isize) -> io::Result<usize> {
        let count = libc::c_int::try_from(self.iovecs.len()).map_err(io::Error::other)?;
        usize::try_from(call(self.iovecs.as_ptr(), count)).map_err(|_| io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    #[test]
    fn parts_of_any_size_are_filled_and_written_in_their_order() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"0123456789", 0).unwrap();
        let (mut first, mut none, mut second) = (*b"....", [0; 0], *b"...");
        let parts = [
            VolatileSlice::from(&mut first[..]),
            VolatileSlice::from(&mut none[..]),
            VolatileSlice::from(&mut second[..]),
        ];
        read_at(file.as_fd(), 2, &parts).unwrap();
        write_at(file.as_fd(), 10, &parts).unwrap();
        let mut text = [0; 17];
        file.read_exact_at(&mut text, 0).unwrap();
        assert_eq!((&first, &second), (b"2345", b"678"));
        assert_eq!(&text, b"01234567892345678");
    }

    #[test]
    fn more_parts_than_the_kernel_takes_at_once_are_transferred() {
        let file = tempfile::tempfile().unwrap();
        let mut memory = vec![7; 3 * MAX_PARTS];
        let parts: Vec<_> = memory.chunks_mut(1).map(VolatileSlice::from).collect();
        write_at(file.as_fd(), 0, &parts).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3 * MAX_PARTS as u64);
    }

    #[test]
    fn what_is_longer_than_one_write_arrives_in_its_order() {
        let file = tempfile::tempfile().unwrap();
        let mut memory: Vec<u8> = (0..3 * MAX_CACHED_WRITE + 5)
            .map(|at| u8::try_from(at / 1000 % 251).unwrap())
            .collect();
        let wanted = memory.clone();
        // No part ends where a write does.
        let parts: Vec<_> = memory.chunks_mut(40_001).map(VolatileSlice::from).collect();
        write_at(file.as_fd(), 7, &parts).unwrap();
        let mut back = vec![0; wanted.len()];
        file.read_exact_at(&mut back, 7).unwrap();
        assert!(back == wanted);
    }

    #[test]
    fn what_lies_beyond_the_end_is_an_error_not_zeros() {
        let file = tempfile::tempfile().unwrap();
        let mut memory = [0; 4];
        let error = read_at(file.as_fd(), 0, &[VolatileSlice::from(&mut memory[..])]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(read_at(file.as_fd(), u64::MAX, &[VolatileSlice::from(&mut memory[..])]).is_err());
    }

    #[test]
    fn a_message_is_sent_whole() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (mut first, mut second) = (*b"ab", *b"cd");
        let parts = [
            VolatileSlice::from(&mut first[..]),
            VolatileSlice::from(&mut second[..]),
        ];
        assert_eq!(send(writer.as_fd(), b"12", &parts).unwrap(), 6);
        let mut got = [0; 6];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"12abcd");
    }
}
