//! What a client sends: bytes, and descriptors along with them.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::MAX_DESCRIPTORS;

/// Reads into `buffer`; descriptors that came along are added to `opened`. The kernel closes those for which a message
/// has no room.
pub(super) fn receive(
    stream: &UnixStream,
    buffer: &mut [u8],
    opened: &mut Vec<OwnedFd>,
) -> rustix::io::Result<usize> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut along = RecvAncillaryBuffer::new(&mut room);
    let pieces = &mut [IoSliceMut::new(buffer)];
    let came = recvmsg(stream, pieces, &mut along, RecvFlags::CMSG_CLOEXEC)?;
    for message in along.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            opened.extend(descriptors);
        }
    }
    Ok(came.bytes)
}
