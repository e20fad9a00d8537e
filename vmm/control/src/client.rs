//! The asking end of the control socket: blocking, with a deadline on every step.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;

use crate::frame::{LineTooLong, Lines};
use crate::message::{Call, Device, Event, Info, Line, Refusal, Reply, Request, Stats, Stopped, VERSION};

/// How long a machine may take to answer. Its event loop never waits, so this is long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a machine.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    lines: Lines,
    next_id: u64,
}

/// The machine could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens, or the socket broke.
    #[error("the machine's control socket does not answer")]
    Socket(#[source] io::Error),
    /// The machine ended while it was asked.
    #[error("the machine closed its control socket")]
    Closed,
    /// Not our protocol.
    #[error("the control socket sent what is not a message")]
    Message(#[source] serde_json::Error),
    /// Not our protocol.
    #[error("the control socket sent too much")]
    TooLong(#[source] LineTooLong),
    /// The machine said no.
    #[error("the machine refused: {0}")]
    Refused(Refusal),
    /// An answer to another question.
    #[error("the machine gave an answer of the wrong kind")]
    Answer,
}

// === impl Client ===

impl Client {
    /// Connects to a machine's `control.sock`.
    ///
    /// # Errors
    /// [`ClientError::Socket`] when nothing listens there.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket).map_err(ClientError::Socket)?;
        for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            set(&stream, Some(ANSWER_TIMEOUT)).map_err(ClientError::Socket)?;
        }
        Ok(Self {
            stream,
            lines: Lines::default(),
            next_id: 1,
        })
    }

    /// The process at the other end, by the kernel's word rather than the peer's.
    ///
    /// # Errors
    /// [`ClientError::Socket`] when the kernel does not tell.
    pub fn peer_pid(&self) -> Result<u32, ClientError> {
        let credentials = rustix::net::sockopt::socket_peercred(&self.stream)
            .map_err(|errno| ClientError::Socket(errno.into()))?;
        Ok(credentials.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Asks who and how the machine is.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub fn info(&mut self) -> Result<Info, ClientError> {
        match self.call(Request::Info)? {
            Reply::Info(info) => Ok(*info),
            _ => Err(ClientError::Answer),
        }
    }

    /// Asks what was counted.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub fn stats(&mut self) -> Result<Stats, ClientError> {
        match self.call(Request::Stats)? {
            Reply::Stats(stats) => Ok(stats),
            _ => Err(ClientError::Answer),
        }
    }

    /// Ends the machine at once.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub fn kill(&mut self) -> Result<(), ClientError> {
        self.perform(Request::Kill)
    }

    /// Has the guest switch itself off, or its power cut at the deadline. Waits until the machine is over.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub fn stop(&mut self, deadline_seconds: u32) -> Result<Stopped, ClientError> {
        let patience = Duration::from_secs(deadline_seconds.into()) + ANSWER_TIMEOUT;
        self.patience(Some(patience))?;
        let reply = self.call(Request::Stop { deadline_seconds });
        self.patience(Some(ANSWER_TIMEOUT))?;
        match reply? {
            Reply::Stopped(stopped) => Ok(stopped),
            _ => Err(ClientError::Answer),
        }
    }

    /// Begins to stop the machine as [`Client::stop`] does, and does not wait until it is over.
    ///
    /// # Errors
    /// [`ClientError::Socket`] when nobody reads.
    pub fn begin_stop(&mut self, deadline_seconds: u32) -> Result<(), ClientError> {
        self.send(Request::Stop { deadline_seconds }, &[]).map(drop)
    }

    /// Plugs a device in, with what was opened for it: [`Request::AddDisk`] or [`Request::AddNet`].
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub fn plug(&mut self, request: Request, opened: &[BorrowedFd<'_>]) -> Result<Device, ClientError> {
        let id = self.send(request, opened)?;
        match self.answer(id)? {
            Reply::Plugged(device) => Ok(device),
            _ => Err(ClientError::Answer),
        }
    }

    /// Asks the guest agent something. What it says is the guest's word.
    ///
    /// # Errors
    /// Any [`ClientError`]; [`ClientError::Socket`] also where the agent takes longer than a machine may.
    pub fn ask_agent(&mut self, execute: &str, arguments: Option<Value>) -> Result<Value, ClientError> {
        let execute = execute.to_owned();
        match self.call(Request::AskAgent { execute, arguments })? {
            Reply::Agent(said) => Ok(said),
            _ => Err(ClientError::Answer),
        }
    }

    /// Does what is answered with nothing but [`Reply::Done`].
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub fn perform(&mut self, request: Request) -> Result<(), ClientError> {
        match self.call(request)? {
            Reply::Done => Ok(()),
            _ => Err(ClientError::Answer),
        }
    }

    /// Turns this connection into a stream of events, which has no deadline.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub fn subscribe(mut self) -> Result<Events, ClientError> {
        self.perform(Request::Subscribe)?;
        self.patience(None)?;
        Ok(Events { client: self })
    }

    fn patience(&self, patience: Option<Duration>) -> Result<(), ClientError> {
        self.stream
            .set_read_timeout(patience)
            .map_err(ClientError::Socket)
    }

    fn call(&mut self, request: Request) -> Result<Reply, ClientError> {
        let id = self.send(request, &[])?;
        self.answer(id)
    }

    /// Sends a request, and descriptors along with its first byte.
    fn send(&mut self, request: Request, opened: &[BorrowedFd<'_>]) -> Result<u64, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = serde_json::to_vec(&Call {
            v: VERSION,
            id,
            request,
        })
        .map_err(ClientError::Message)?;
        line.push(b'\n');
        let mut room = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(opened.len()))];
        let mut along = SendAncillaryBuffer::new(&mut room);
        if !opened.is_empty() {
            along.push(SendAncillaryMessage::ScmRights(opened));
        }
        let sent = retry_on_intr(|| {
            sendmsg(
                &self.stream,
                &[IoSlice::new(&line)],
                &mut along,
                SendFlags::NOSIGNAL,
            )
        });
        let sent = sent.map_err(|errno| ClientError::Socket(errno.into()))?;
        let rest = line.get(sent..).unwrap_or_default();
        self.stream.write_all(rest).map_err(ClientError::Socket)?;
        Ok(id)
    }

    fn answer(&mut self, id: u64) -> Result<Reply, ClientError> {
        loop {
            match self.receive()? {
                Line::Answer {
                    id: of,
                    reply: Reply::Refused(why),
                } if of == id => return Err(ClientError::Refused(why)),
                Line::Answer { id: of, reply } if of == id => return Ok(reply),
                Line::Answer { .. } | Line::Event { .. } => {}
            }
        }
    }

    fn receive(&mut self) -> Result<Line, ClientError> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(line) = self.lines.next_line().map_err(ClientError::TooLong)? {
                match serde_json::from_slice(&line) {
                    Ok(line) => return Ok(line),
                    // An event of a later rvmm.
                    Err(_) if is_event(&line) => continue,
                    Err(error) => return Err(ClientError::Message(error)),
                }
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(count) => self.lines.feed(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ClientError::Socket(error)),
            }
        }
    }
}

fn is_event(line: &[u8]) -> bool {
    serde_json::from_slice::<Value>(line).is_ok_and(|line| line.get("event").is_some())
}

/// Events of a machine, until it ends.
#[derive(Debug)]
pub struct Events {
    client: Client,
}

impl Iterator for Events {
    type Item = Result<Event, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.client.receive() {
                Ok(Line::Event { event }) => return Some(Ok(event)),
                Ok(Line::Answer { .. }) => {}
                Err(ClientError::Closed) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
