//! The network of passt: a program that carries a guest's packets with no rights but its user's.
//!
//! Over its Unix socket each frame has its length before it, in four bytes, the highest first; there is nothing to agree
//! upon, and nothing is left undone in a frame. A frame that the socket takes only in part is finished before the next
//! one, and meanwhile frames of the guest are dropped.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rvmm_devices::virtio::net::{HEADER_LEN, MAX_FRAME, NetBackend};
use vm_memory::VolatileSlice;

use crate::{socket, transfer};

/// Bytes of a length.
const LENGTH: usize = 4;
/// Bytes that are read at a time.
const READ: usize = 64 << 10;

/// The connection to passt.
pub struct Passt {
    stream: UnixStream,
    /// What has come; `start..end` of it has not been looked at.
    came: Box<[u8]>,
    start: usize,
    end: usize,
    /// What is left of a frame that the socket did not take whole.
    going: Vec<u8>,
    /// The other side is gone, or speaks something else.
    broken: bool,
}

/// Nobody is there.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to passt at '{}'; start it with: passt --socket {}", .0.display(), .0.display())]
pub struct PasstError(PathBuf, #[source] io::Error);

// === impl Passt ===

impl Passt {
    /// Connects to a passt that listens there.
    ///
    /// # Errors
    /// Nobody does.
    pub fn connect(path: &Path) -> Result<Self, PasstError> {
        let stream = socket::connect(path).map_err(|error| PasstError(path.to_owned(), error))?;
        Ok(Self::new(stream))
    }

    /// Whether something is there that may be one, without connecting to it: it takes one guest.
    ///
    /// # Errors
    /// There is no socket.
    pub fn probe(path: &Path) -> Result<(), PasstError> {
        socket::is_there(path).map_err(|error| PasstError(path.to_owned(), error))
    }

    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            came: vec![0; LENGTH + MAX_FRAME + READ].into_boxed_slice(),
            start: 0,
            end: 0,
            going: Vec::new(),
            broken: false,
        }
    }

    /// The next whole frame of what has come: where it lies.
    fn next(&mut self) -> io::Result<Option<std::ops::Range<usize>>> {
        let came = self.came.get(self.start..self.end).unwrap_or_default();
        let Some((length, rest)) = came.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            // Where the next frame begins cannot be known.
            self.broken = true;
            return Err(ErrorKind::InvalidData.into());
        }
        if rest.len() < length {
            return Ok(None);
        }
        let first = self.start + LENGTH;
        self.start = first + length;
        Ok(Some(first..first + length))
    }

    /// Reads on; whether anything came.
    fn fetch(&mut self) -> io::Result<bool> {
        self.came.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        match self
            .stream
            .read(self.came.get_mut(self.end..).unwrap_or_default())
        {
            Ok(0) => {
                self.broken = true;
                Err(ErrorKind::UnexpectedEof.into())
            }
            Ok(count) => {
                self.end += count;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends the rest of an earlier frame; whether there is none any more.
    fn finish(&mut self) -> io::Result<bool> {
        while !self.going.is_empty() {
            match self.stream.write(&self.going) {
                Ok(count) => drop(self.going.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl NetBackend for Passt {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        while !self.broken {
            if let Some(frame) = self.next()? {
                let frame = self.came.get(frame).unwrap_or_default();
                let Some((header, room)) = buffer.split_at_mut_checked(HEADER_LEN) else {
                    return Ok(None);
                };
                header.fill(0);
                let len = frame.len().min(room.len());
                room[..len].copy_from_slice(&frame[..len]);
                return Ok(Some(HEADER_LEN + len));
            }
            if !self.fetch()? {
                break;
            }
        }
        Ok(None)
    }

    fn send(&mut self, _header: &[u8; HEADER_LEN], frame: &[VolatileSlice<'_>]) -> io::Result<()> {
        if self.broken || !self.finish()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let len: usize = frame.iter().map(VolatileSlice::len).sum();
        let length = u32::try_from(len).map_err(io::Error::other)?.to_be_bytes();
        let sent = transfer::send(self.stream.as_fd(), &length, frame)?;
        if sent < LENGTH + len {
            // Copied, since the guest's memory is the guest's again when this returns.
            let mut whole = length.to_vec();
            for part in frame {
                let start = whole.len();
                whole.resize(start + part.len(), 0);
                part.copy_to(&mut whole[start..]);
            }
            self.going = whole.split_off(sent);
        }
        Ok(())
    }
}

impl AsRawFd for Passt {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixStream, Passt) {
        let (theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (theirs, Passt::new(ours))
    }

    fn received(passt: &mut Passt) -> Option<Vec<u8>> {
        let mut buffer = vec![0xee; HEADER_LEN + MAX_FRAME];
        let len = passt.receive(&mut buffer).unwrap()?;
        assert_eq!(buffer[..HEADER_LEN], [0; HEADER_LEN]);
        Some(buffer[HEADER_LEN..len].to_vec())
    }

    fn framed(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    #[test]
    fn frames_come_whole_however_they_were_cut() {
        let (mut theirs, mut passt) = pair();
        let bytes = [framed(&[1; 60]), framed(&[2; 1500]), framed(&[])].concat();
        theirs.write_all(&bytes[..70]).unwrap();
        assert_eq!(
            (received(&mut passt), received(&mut passt)),
            (Some(vec![1; 60]), None)
        );
        theirs.write_all(&bytes[70..]).unwrap();
        assert_eq!(received(&mut passt), Some(vec![2; 1500]));
        assert_eq!((received(&mut passt), received(&mut passt)), (Some(vec![]), None));
    }

    #[test]
    fn frames_go_with_their_length_in_front() {
        let (mut theirs, mut passt) = pair();
        let (mut first, mut second) = ([1; 40], [2; 20]);
        let parts = [
            VolatileSlice::from(&mut first[..]),
            VolatileSlice::from(&mut second[..]),
        ];
        passt.send(&[0; HEADER_LEN], &parts).unwrap();
        let mut got = [0; 64];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(got.to_vec(), framed(&[&[1; 40][..], &[2; 20]].concat()));
    }

    #[test]
    fn a_frame_that_was_cut_is_finished_before_the_next() {
        let (mut theirs, mut passt) = pair();
        let mut frame = vec![7; 60_000];
        let parts = [VolatileSlice::from(&mut frame[..])];
        let sent = (0..1000)
            .take_while(|_| passt.send(&[0; HEADER_LEN], &parts).is_ok())
            .count();
        assert!((1..1000).contains(&sent), "{sent}");
        theirs.set_nonblocking(true).unwrap();
        let mut got = Vec::new();
        let mut rest = true;
        while rest {
            let more = theirs.read_to_end(&mut got);
            assert_eq!(more.unwrap_err().kind(), ErrorKind::WouldBlock);
            rest = !passt.going.is_empty();
            passt.finish().unwrap();
        }
        theirs.read_to_end(&mut got).unwrap_err();
        assert_eq!(got, framed(&[7; 60_000]).repeat(sent));
    }

    #[test]
    fn a_length_that_cannot_be_ends_the_network_and_nothing_else() {
        let (mut theirs, mut passt) = pair();
        theirs.write_all(&[0xff; 100]).unwrap();
        let mut buffer = vec![0; HEADER_LEN + MAX_FRAME];
        assert!(passt.receive(&mut buffer).is_err());
        assert_eq!(received(&mut passt), None);
        let mut frame = [0; 60];
        assert!(
            passt
                .send(&[0; HEADER_LEN], &[VolatileSlice::from(&mut frame[..])])
                .is_err()
        );
    }

    #[test]
    fn the_longest_frame_comes_and_an_end_is_quiet() {
        let (mut theirs, mut passt) = pair();
        let writer = std::thread::spawn(move || theirs.write_all(&framed(&vec![9; MAX_FRAME])));
        let mut got = None;
        while got.is_none() {
            got = received(&mut passt);
        }
        writer.join().unwrap().unwrap();
        assert_eq!(got, Some(vec![9; MAX_FRAME]));
        assert!(passt.receive(&mut [0; 100]).is_err());
        assert_eq!(received(&mut passt), None);
    }

    #[test]
    fn without_passt_it_is_said_how_to_start_it() {
        let error = Passt::connect(Path::new("/nonexistent/p")).err().unwrap();
        assert_eq!(
            error.to_string(),
            "cannot connect to passt at '/nonexistent/p'; start it with: passt --socket /nonexistent/p"
        );
    }
}
