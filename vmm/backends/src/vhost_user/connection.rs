//! The connection to a server: what is asked and answered, with a deadline.
//!
//! The server may be anybody's. It is never waited for longer than [`PATIENCE`], in all, for an answer; and one that
//! hangs up, is late, or says what was not asked for is given up for good, with one line in the log. (That is why the
//! crate `vhost` is not used: its front end waits for an answer as long as it takes.)

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, send, sendmsg};

use super::ShareError;
use super::message::{HEADER, MULTIQUEUE, PROTOCOL_FEATURES, Request, is_answer, message};
use crate::socket;

/// How long an answer may take. They come at once; a machine that is busy beyond measure gets some time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most descriptors that go along with a message: a file for each region of guest memory.
const MAX_DESCRIPTORS: usize = 8;

/// A server that has agreed to serve.
pub struct Connection {
    stream: UnixStream,
    path: PathBuf,
    /// The features of rings that it knows.
    features: u64,
    gone: bool,
}

// === impl Connection ===

impl Connection {
    /// Connects, and agrees on everything that holds for as long as the connection does.
    pub(super) fn open(path: &Path, queues: usize) -> Result<Self, ShareError> {
        let stream = socket::connect(path).map_err(|error| ShareError::Connect(path.to_owned(), error))?;
        Self::over(stream, path, queues)
    }

    pub(super) fn over(stream: UnixStream, path: &Path, queues: usize) -> Result<Self, ShareError> {
        let mut connection = Self {
            stream,
            path: path.to_owned(),
            features: 0,
            gone: false,
        };
        let served = connection
            .agree()
            .map_err(|error| ShareError::Talk(path.to_owned(), error))?;
        if served < queues as u64 {
            return Err(ShareError::Queues(path.to_owned(), served));
        }
        Ok(connection)
    }

    /// Says how many queues it serves.
    fn agree(&mut self) -> io::Result<u64> {
        let unsuitable = || io::Error::new(ErrorKind::Unsupported, "it lacks the protocol's features");
        self.features = self.ask(Request::GetFeatures, &[])?;
        if self.features & PROTOCOL_FEATURES == 0 {
            return Err(unsuitable());
        }
        if self.ask(Request::GetProtocolFeatures, &[])? & MULTIQUEUE == 0 {
            return Err(unsuitable());
        }
        self.tell(Request::SetProtocolFeatures, &MULTIQUEUE.to_ne_bytes(), &[])?;
        self.tell(Request::SetOwner, &[], &[])?;
        self.ask(Request::GetQueueCount, &[])
    }

    /// The features of rings that the server knows.
    pub(super) fn features(&self) -> u64 {
        self.features & !PROTOCOL_FEATURES
    }

    /// Says something that is not answered.
    pub(super) fn tell(
        &mut self,
        request: Request,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.unless_gone(|stream| send_all(stream, &message(request, body), descriptors))
    }

    /// Says something, and waits for the answer. Makes only those system calls that a vCPU's thread may make.
    pub(super) fn ask(&mut self, request: Request, body: &[u8]) -> io::Result<u64> {
        self.unless_gone(|stream| {
            send_plain(stream, &message(request, body))?;
            let deadline = Instant::now() + PATIENCE;
            let mut header = [0; HEADER];
            receive(stream, &mut header, deadline)?;
            if !is_answer(&header, request) {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "it answers something else",
                ));
            }
            let mut value = [0; 8];
            receive(stream, &mut value, deadline)?;
            Ok(u64::from_ne_bytes(value))
        })
    }

    /// Whether the server is still there, and silent, as it has to be when nothing was asked.
    pub(super) fn check(&mut self) -> io::Result<()> {
        self.unless_gone(|stream| {
            let mut byte = [0];
            match recv(stream, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
                Ok((_, 0)) => Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "it says what nobody asked for",
                )),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Whether it was given up.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    /// After the first failure all that follows fails at once. (It is not hung up on: a vCPU's thread may not do that.)
    fn unless_gone<T>(&mut self, what: impl FnOnce(&UnixStream) -> io::Result<T>) -> io::Result<T> {
        if self.gone {
            return Err(ErrorKind::BrokenPipe.into());
        }
        what(&self.stream).inspect_err(|error| {
            self.gone = true;
            tracing::warn!(
                "the server of files at '{}' is gone: {error}; its guest waits in vain until both are started again",
                self.path.display()
            );
        })
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// Sends all, or fails: a server that does not read a few hundred bytes is not one to wait for.
fn send_all(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if descriptors.is_empty() {
        return send_plain(stream, bytes);
    }
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    if !along.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "too many descriptors"));
    }
    let sent = sendmsg(
        stream,
        &[io::IoSlice::new(bytes)],
        &mut along,
        SendFlags::NOSIGNAL,
    )?;
    whole(sent, bytes)
}

fn send_plain(stream: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    whole(send(stream, bytes, SendFlags::NOSIGNAL)?, bytes)
}

fn whole(sent: usize, bytes: &[u8]) -> io::Result<()> {
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(ErrorKind::WriteZero.into())
    }
}

/// Fills the buffer.
fn receive(stream: &UnixStream, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Err(io::Error::new(ErrorKind::TimedOut, "it does not answer")),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match rustix::io::read(stream, &mut *buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => buffer = &mut std::mem::take(&mut buffer)[count..],
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
