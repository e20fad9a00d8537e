//! One connection between a port of the guest and a Unix socket of the host, and the credit of both sides.
//!
//! ```text
//!   Requested ──RESPONSE──► Established ──both sides have no more to send, all is delivered──► RST, gone
//!       └──────────── RST, a broken rule, a socket that fails ────────────────────────────────► RST, gone
//! ```
//!
//! The guest may have [`BUFFER`] bytes on their way that its reader here has not taken yet; one more is a broken rule.
//! What it grants us is its word, and what we read ahead of it is nothing: data stays in the socket until it may go.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::num::Wrapping;
use std::os::unix::net::UnixStream;

use rustix::event::epoll::EventFlags;
use rvmm_devices::virtio::vsock::{Op, Packet};

/// Bytes from the guest that wait for a slow reader, per connection.
pub(super) const BUFFER: u32 = 256 << 10;

/// Who speaks with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub host_port: u32,
    pub guest_port: u32,
}

/// The guest broke a rule, or the socket is gone: the connection ends with a reset.
#[derive(Debug)]
pub(super) struct Broken;

/// Packets without data that the guest is owed.
#[derive(Debug, Default)]
struct Due {
    opening: Option<Op>,
    credit_update: bool,
    credit_request: bool,
    shutdown: bool,
}

/// A connection.
pub(super) struct Connection {
    stream: UnixStream,
    /// The number under which its socket is watched.
    pub token: u64,
    /// What the socket is watched for.
    pub watched: EventFlags,
    /// Whether it stands in line to speak.
    pub in_line: bool,
    established: bool,
    due: Due,
    buffer: VecDeque<u8>,
    received: Wrapping<u32>,
    forwarded: Wrapping<u32>,
    /// How much of `forwarded` the guest has heard of.
    told: Wrapping<u32>,
    peer_buffer: u32,
    peer_forwarded: Wrapping<u32>,
    sent: Wrapping<u32>,
    readable: bool,
    /// The guest will send no more.
    guest_done: bool,
    /// The host's side will send no more.
    host_done: bool,
}

// === impl Connection ===

impl Connection {
    /// The guest has asked for this, and the socket is connected.
    pub(super) fn accepted(stream: UnixStream, token: u64, request: &Packet) -> Self {
        let mut connection = Self::new(stream, token, Op::Response);
        connection.established = true;
        connection.hear(request);
        connection
    }

    /// A program of the host wants this.
    pub(super) fn requested(stream: UnixStream, token: u64) -> Self {
        Self::new(stream, token, Op::Request)
    }

    fn new(stream: UnixStream, token: u64, opening: Op) -> Self {
        Self {
            stream,
            token,
            watched: EventFlags::empty(),
            in_line: false,
            established: false,
            due: Due {
                opening: Some(opening),
                ..Due::default()
            },
            buffer: VecDeque::new(),
            received: Wrapping(0),
            forwarded: Wrapping(0),
            told: Wrapping(0),
            peer_buffer: 0,
            peer_forwarded: Wrapping(0),
            sent: Wrapping(0),
            readable: false,
            guest_done: false,
            host_done: false,
        }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Takes a packet of the guest's.
    pub(super) fn take(&mut self, key: Key, packet: &Packet, data: &[u8]) -> Result<(), Broken> {
        self.hear(packet);
        match packet.op {
            // The first is there already, and the last ends every connection.
            Op::Request | Op::Reset => return Err(Broken),
            Op::Response if self.established => return Err(Broken),
            Op::Response => {
                self.established = true;
                let answer = format!("OK {}\n", key.host_port);
                // A new socket has room for so little.
                self.stream.write_all(answer.as_bytes()).map_err(|_| Broken)?;
            }
            Op::Data => self.forward(data)?,
            Op::Shutdown { receive, send } => {
                self.guest_done |= send;
                if receive {
                    // Nobody will read what comes.
                    self.host_done = true;
                    self.stream.shutdown(Shutdown::Read).ok();
                }
                self.pass_end_on();
            }
            Op::CreditUpdate => {}
            Op::CreditRequest => self.due.credit_update = true,
        }
        Ok(())
    }

    /// Every packet tells of the sender's room.
    fn hear(&mut self, packet: &Packet) {
        self.peer_buffer = packet.buffer;
        self.peer_forwarded = Wrapping(packet.forwarded);
        self.due.credit_request = false;
    }

    fn forward(&mut self, data: &[u8]) -> Result<(), Broken> {
        let len = u32::try_from(data.len()).map_err(|_| Broken)?;
        let on_their_way = (self.received - self.forwarded).0;
        if !self.established || self.guest_done || len > BUFFER.saturating_sub(on_their_way) {
            return Err(Broken);
        }
        self.received += len;
        let written = if self.buffer.is_empty() {
            let written = (&self.stream).write(data);
            self.account(written)?
        } else {
            0
        };
        self.buffer.extend(data.get(written..).unwrap_or_default());
        Ok(())
    }

    /// So many bytes have gone to the host's side.
    fn account(&mut self, written: io::Result<usize>) -> Result<usize, Broken> {
        let count = if_ready(written)?.unwrap_or(0);
        self.forwarded += u32::try_from(count).map_err(|_| Broken)?;
        // Early enough that a sender does not run dry, seldom enough that it is not told of every byte.
        self.due.credit_update |= (self.forwarded - self.told).0 >= BUFFER / 4;
        Ok(count)
    }

    /// The socket is ready for these.
    pub(super) fn wake(&mut self, events: EventFlags) -> Result<(), Broken> {
        if events.contains(EventFlags::OUT) {
            while !self.buffer.is_empty() {
                let written = (&self.stream).write(self.buffer.as_slices().0);
                match self.account(written)? {
                    0 => break,
                    count => drop(self.buffer.drain(..count)),
                }
            }
            self.pass_end_on();
        }
        if events.intersects(EventFlags::ERR | EventFlags::HUP) && self.host_done {
            // Nobody is there any more, neither to read nor to write.
            return Err(Broken);
        }
        self.readable |= events.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR);
        Ok(())
    }

    /// The guest's end of file reaches the reader behind the last byte.
    fn pass_end_on(&mut self) {
        if self.guest_done && self.buffer.is_empty() {
            self.stream.shutdown(Shutdown::Write).ok();
        }
    }

    /// Both sides have said all, and all of it has been passed on.
    pub(super) fn is_over(&self) -> bool {
        self.guest_done && self.host_done && self.buffer.is_empty() && !self.due.shutdown
    }

    /// Bytes that the guest has room for.
    fn credit(&self) -> usize {
        let on_their_way = (self.sent - self.peer_forwarded).0;
        usize::try_from(self.peer_buffer.saturating_sub(on_their_way)).unwrap_or(0)
    }

    fn may_read(&self) -> bool {
        self.established && !self.host_done
    }

    /// What the socket should be watched for.
    pub(super) fn interest(&self) -> EventFlags {
        let mut events = EventFlags::empty();
        events.set(EventFlags::IN, self.may_read() && !self.readable);
        events.set(EventFlags::OUT, !self.buffer.is_empty());
        events
    }

    /// Whether there may be something to tell the guest.
    pub(super) fn has_news(&self) -> bool {
        let due = &self.due;
        let asks = self.credit() == 0 && !due.credit_request;
        due.opening.is_some()
            || due.shutdown
            || due.credit_update
            || self.may_read() && self.readable && (self.credit() > 0 || asks)
    }

    /// The next packet for the guest, and how many bytes of data it has.
    pub(super) fn speak(&mut self, data: &mut [u8]) -> Result<Option<(Op, usize)>, Broken> {
        if let Some(op) = self.due.opening.take() {
            return Ok(Some((op, 0)));
        }
        if self.may_read() && self.readable {
            let room = self.credit().min(data.len());
            if room > 0 {
                if let Some(len) = self.read(&mut data[..room])? {
                    return Ok(Some((Op::Data, len)));
                }
            } else if !self.due.credit_request {
                self.due.credit_request = true;
                return Ok(Some((Op::CreditRequest, 0)));
            }
        }
        if std::mem::take(&mut self.due.shutdown) {
            let end = Op::Shutdown {
                receive: false,
                send: true,
            };
            return Ok(Some((end, 0)));
        }
        Ok(std::mem::take(&mut self.due.credit_update).then_some((Op::CreditUpdate, 0)))
    }

    fn read(&mut self, room: &mut [u8]) -> Result<Option<usize>, Broken> {
        match if_ready((&self.stream).read(room))? {
            None => {
                self.readable = false;
                Ok(None)
            }
            Some(0) => {
                self.host_done = true;
                self.due.shutdown = true;
                Ok(None)
            }
            Some(len) => {
                self.sent += u32::try_from(len).map_err(|_| Broken)?;
                Ok(Some(len))
            }
        }
    }

    /// A packet of this connection. Each tells of our room.
    pub(super) fn packet(&mut self, key: Key, op: Op) -> Packet {
        self.told = self.forwarded;
        self.due.credit_update = false;
        Packet {
            buffer: BUFFER,
            forwarded: self.forwarded.0,
            ..bare(key, op)
        }
    }
}

/// A packet that tells nothing of a connection.
pub(super) fn bare(key: Key, op: Op) -> Packet {
    Packet {
        guest_port: key.guest_port,
        host_port: key.host_port,
        op,
        buffer: 0,
        forwarded: 0,
    }
}

/// `None` where the socket is not ready.
fn if_ready(moved: io::Result<usize>) -> Result<Option<usize>, Broken> {
    match moved {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(_) => Err(Broken),
    }
}
