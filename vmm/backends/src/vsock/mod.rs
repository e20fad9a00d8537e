//! Sockets of the guest (`AF_VSOCK`) to and from Unix sockets of the host, in the way that Firecracker and
//! cloud-hypervisor have made common.
//!
//! ```text
//!   guest connects to port P of the host ─► we connect to PATH_P
//!   a program connects to PATH, says "CONNECT P\n" ─► we ask the guest's port P ─► "OK <our port>\n", then the stream
//! ```
//!
//! One descriptor stands for all of them: an epoll that the event loop watches, and that the device asks when it has
//! room for packets. Whoever has something to say stands in a line; each says one packet and goes to its end.
//!
//! Bounds: [`MAX_CONNECTIONS`], each with a buffer of its own; [`MAX_HANDSHAKES`]; [`MAX_RESETS`] answers to packets
//! that belong to nothing.

mod connection;
mod handshake;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rvmm_devices::virtio::vsock::{Op, Packet, VsockBackend};

use crate::socket::{self, ListenError};
use connection::{Broken, Connection, Key, bare};
use handshake::{Handshake, Line};

/// Most connections of one guest at a time, in both directions together.
pub const MAX_CONNECTIONS: usize = 256;
/// Most programs of the host that have connected and not said yet to which port.
pub const MAX_HANDSHAKES: usize = 32;
/// Most resets that wait for the guest to take them; there is no right to one.
pub const MAX_RESETS: usize = 256;

/// Our ports begin here, far from those that programs choose.
const FIRST_PORT: u32 = 1 << 30;
/// Events that are fetched at a time: one of every descriptor, so that none hides another.
const EVENTS: usize = MAX_CONNECTIONS + MAX_HANDSHAKES + 2;

const LISTENER: u64 = 0;
const WAKE: u64 = 1;
/// The numbers under which streams are watched begin here.
const FIRST_TOKEN: u64 = 2;

/// All connections of one guest.
pub struct Muxer {
    path: PathBuf,
    epoll: OwnedFd,
    /// Makes the epoll ready when answers wait for the guest.
    wake: OwnedFd,
    listener: UnixListener,
    connections: BTreeMap<Key, Connection>,
    tokens: BTreeMap<u64, Key>,
    handshakes: BTreeMap<u64, Handshake>,
    /// Those who have something to say.
    line: VecDeque<Key>,
    resets: VecDeque<Key>,
    next_token: u64,
    next_port: u32,
}

/// The sockets cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The path cannot be listened on.
    #[error("vsock")]
    Listen(#[source] ListenError),
    /// The kernel gives no descriptors.
    #[error("no descriptors for vsock")]
    System(#[source] io::Error),
}

// === impl Muxer ===

impl Muxer {
    /// Listens at this path for programs that want to reach the guest.
    ///
    /// # Errors
    /// The path is in use, or may not be written.
    pub fn listen(path: &Path) -> Result<Self, VsockError> {
        let listener = socket::listen(path).map_err(VsockError::Listen)?;
        let system = |errno: rustix::io::Errno| VsockError::System(errno.into());
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(system)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(system)?;
        watch(&epoll, &listener, LISTENER, EventFlags::IN).map_err(system)?;
        watch(&epoll, &wake, WAKE, EventFlags::IN).map_err(system)?;
        Ok(Self {
            path: path.to_owned(),
            epoll,
            wake,
            listener,
            connections: BTreeMap::new(),
            tokens: BTreeMap::new(),
            handshakes: BTreeMap::new(),
            line: VecDeque::new(),
            resets: VecDeque::new(),
            next_token: FIRST_TOKEN,
            next_port: FIRST_PORT,
        })
    }

    /// Where the program listens that serves this port of the host.
    fn path_of(&self, port: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{port}"));
        path.into()
    }

    fn token(&mut self) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        token
    }

    /// The guest asks for a connection.
    fn open(&mut self, key: Key, request: &Packet) {
        let room = self.connections.len() < MAX_CONNECTIONS;
        let path = self.path_of(key.host_port);
        let Some(stream) = room.then(|| socket::connect(&path).ok()).flatten() else {
            return self.refuse(key);
        };
        let token = self.token();
        self.insert(key, Connection::accepted(stream, token, request));
    }

    fn insert(&mut self, key: Key, connection: Connection) {
        let token = connection.token;
        if watch(&self.epoll, connection.stream(), token, EventFlags::empty()).is_err() {
            return self.refuse(key);
        }
        self.tokens.insert(token, key);
        self.connections.insert(key, connection);
        self.settle(key);
    }

    /// Ends a connection, and tells the guest.
    fn break_off(&mut self, key: Key) {
        self.forget(key);
        self.refuse(key);
    }

    fn forget(&mut self, key: Key) {
        if let Some(connection) = self.connections.remove(&key) {
            self.tokens.remove(&connection.token);
            epoll::delete(&self.epoll, connection.stream()).ok();
        }
    }

    /// Tells the guest that there is no such connection.
    fn refuse(&mut self, key: Key) {
        if self.resets.len() < MAX_RESETS {
            self.resets.push_back(key);
            self.wake();
        }
    }

    fn wake(&self) {
        // Fails only when the counter is about to overflow, and then it is awake anyway.
        rustix::io::write(&self.wake, &1u64.to_ne_bytes()).ok();
    }

    /// After whatever has happened to a connection: over, in line to speak, watched for what it waits for.
    fn settle(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        if connection.is_over() {
            return self.break_off(key);
        }
        let interest = connection.interest();
        if interest != connection.watched {
            connection.watched = interest;
            let data = EventData::new_u64(connection.token);
            if epoll::modify(&self.epoll, connection.stream(), data, interest).is_err() {
                return self.break_off(key);
            }
        }
        if connection.has_news() && !connection.in_line {
            connection.in_line = true;
            self.line.push_back(key);
            self.wake();
        }
    }

    /// The next packet of those who wait, if there is one.
    fn next(&mut self, data: &mut [u8]) -> Option<(Packet, usize)> {
        if let Some(key) = self.resets.pop_front() {
            return Some((bare(key, Op::Reset), 0));
        }
        while let Some(key) = self.line.pop_front() {
            let Some(connection) = self.connections.get_mut(&key) else {
                continue;
            };
            connection.in_line = false;
            match connection.speak(data) {
                Ok(said) => {
                    let said = said.map(|(op, len)| (connection.packet(key, op), len));
                    self.settle(key);
                    if said.is_some() {
                        return said;
                    }
                }
                Err(Broken) => {
                    self.forget(key);
                    return Some((bare(key, Op::Reset), 0));
                }
            }
        }
        None
    }

    /// Looks once at all sockets; whether one of them had something.
    fn look(&mut self) -> bool {
        let mut events: [epoll::Event; EVENTS] = std::array::from_fn(|_| epoll::Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        });
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let count = epoll::wait(&self.epoll, &mut events[..], Some(&now)).unwrap_or(0);
        for event in &events[..count.min(EVENTS)] {
            self.wake_one(event.data.u64(), event.flags);
        }
        !self.resets.is_empty() || !self.line.is_empty()
    }

    fn wake_one(&mut self, token: u64, events: EventFlags) {
        if token == LISTENER {
            return self.accept();
        }
        if token == WAKE {
            rustix::io::read(&self.wake, &mut [0; 8]).ok();
            return;
        }
        if self.handshakes.contains_key(&token) {
            return self.shake(token);
        }
        let Some(&key) = self.tokens.get(&token) else {
            return;
        };
        match self
            .connections
            .get_mut(&key)
            .map(|connection| connection.wake(events))
        {
            Some(Err(Broken)) => self.break_off(key),
            _ => self.settle(key),
        }
    }

    /// Takes those who wait at the door; whoever comes when all places are taken is sent away.
    fn accept(&mut self) {
        while let Some(stream) = socket::accept(&self.listener) {
            let token = self.token();
            if self.handshakes.len() < MAX_HANDSHAKES
                && watch(&self.epoll, &stream, token, EventFlags::IN).is_ok()
            {
                self.handshakes.insert(token, Handshake::new(stream));
                // Most have said it by now.
                self.shake(token);
            }
        }
    }

    fn shake(&mut self, token: u64) {
        let line = self.handshakes.get_mut(&token).map(Handshake::read);
        if matches!(line, None | Some(Line::Partial)) {
            return;
        }
        let Some(Handshake { stream, .. }) = self.handshakes.remove(&token) else {
            return;
        };
        epoll::delete(&self.epoll, &stream).ok();
        if let Some(Line::Port(port)) = line
            && self.connections.len() < MAX_CONNECTIONS
        {
            self.request(stream, port);
        }
    }

    /// Asks the guest for a connection to this port, from a port of ours that is free.
    fn request(&mut self, stream: UnixStream, guest_port: u32) {
        let mut key = self.next_key(guest_port);
        // There are fewer connections than ports.
        while self.connections.contains_key(&key) {
            key = self.next_key(guest_port);
        }
        let token = self.token();
        self.insert(key, Connection::requested(stream, token));
    }

    fn next_key(&mut self, guest_port: u32) -> Key {
        let host_port = self.next_port;
        self.next_port = host_port.checked_add(1).unwrap_or(FIRST_PORT);
        Key {
            host_port,
            guest_port,
        }
    }
}

impl VsockBackend for Muxer {
    fn send(&mut self, packet: &Packet, data: &[u8]) {
        let key = Key {
            host_port: packet.host_port,
            guest_port: packet.guest_port,
        };
        let taken = self
            .connections
            .get_mut(&key)
            .map(|connection| connection.take(key, packet, data));
        match (taken, packet.op) {
            (Some(Ok(())), _) => self.settle(key),
            (Some(Err(Broken)), Op::Reset) => self.forget(key),
            (Some(Err(Broken)), _) => self.break_off(key),
            (None, Op::Request) => self.open(key, packet),
            (None, Op::Reset) => {}
            (None, _) => self.refuse(key),
        }
    }

    fn receive(&mut self, data: &mut [u8]) -> Option<(Packet, usize)> {
        loop {
            let packet = self.next(data);
            if packet.is_some() || !self.look() {
                return packet;
            }
        }
    }

    fn reset(&mut self) {
        let keys: Vec<_> = self.connections.keys().copied().collect();
        keys.into_iter().for_each(|key| self.forget(key));
        self.line.clear();
        self.resets.clear();
    }
}

impl AsRawFd for Muxer {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

impl Drop for Muxer {
    fn drop(&mut self) {
        // Gone already where somebody has tidied up.
        std::fs::remove_file(&self.path).ok();
    }
}

fn watch(epoll: &OwnedFd, fd: impl AsFd, token: u64, events: EventFlags) -> rustix::io::Result<()> {
    epoll::add(epoll, fd, EventData::new_u64(token), events)
}
