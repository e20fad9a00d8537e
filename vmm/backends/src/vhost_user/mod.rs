//! Servers that work on a guest's rings from a process of their own (vhost-user): virtiofsd, for shared folders.
//!
//! ```text
//!   start of rvmm   connect: features, owner, queues                    Connection, kept over resets of the guest
//!   DRIVER_OK       features, guest RAM (its file), each queue: place, kick and call descriptors, go
//!   in between      nothing: guest and server speak through RAM, KVM rings the kick, the event loop hears the call
//!   reset, end      each queue: where are you? (its answer: it has stopped)
//! ```
//!
//! virtiofsd ends when its connection does. So the connection outlives a boot, and the next one begins again with the
//! features: the server forgets the old guest's memory when it hears of the new one's.

mod connection;
mod message;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rvmm_devices::virtio::fs::Fs;
use rvmm_devices::virtio::served::{RingServer, Rings};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use self::connection::Connection;
use self::message::{PROTOCOL_FEATURES, Region, Request, memory, ring_place, ring_state};
use crate::socket;
use crate::wires::{Wires, borrowed};

/// The servers that this process is connected to. They outlive a boot of the machine.
#[derive(Clone, Default)]
pub struct Servers(Arc<Mutex<Vec<Known>>>);

/// A server, by its socket.
struct Known {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

/// A server as one boot of the machine uses it.
pub struct Served {
    connection: Arc<Mutex<Connection>>,
    socket: RawFd,
    features: u64,
    memory: GuestMemoryMmap,
    wires: Wires,
    /// How many queues it works on.
    started: usize,
}

/// A shared folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// Nobody is there.
    #[error("cannot connect to virtiofsd at '{path}'; start it with: virtiofsd --socket-path {path} --shared-dir FOLDER", path = .0.display())]
    Connect(PathBuf, #[source] io::Error),
    /// It is no server, or not one of today.
    #[error("what listens at '{}' does not speak vhost-user as virtiofsd does", .0.display())]
    Talk(PathBuf, #[source] io::Error),
    /// It is another kind of server.
    #[error("what listens at '{path}' serves {1} queues; a file system needs {queues}", path = .0.display(), queues = Fs::QUEUES)]
    Queues(PathBuf, u64),
    /// The kernel gave no descriptors.
    #[error("no descriptors for the server of files")]
    Descriptors(#[source] io::Error),
}

/// Whether something is there that may be a server, without connecting to it: it takes one guest.
///
/// # Errors
/// There is no socket.
pub fn probe(path: &Path) -> Result<(), ShareError> {
    socket::is_there(path).map_err(|error| ShareError::Connect(path.to_owned(), error))
}

// === impl Servers ===

impl Servers {
    /// The server that listens there, for a guest with this memory.
    ///
    /// # Errors
    /// Nobody does, or it is none.
    pub fn serve(&self, path: &Path, memory: &GuestMemoryMmap) -> Result<Served, ShareError> {
        let connection = self.connection(path)?;
        let (socket, features) = {
            let connection = lock(&connection);
            (connection.as_raw_fd(), connection.features())
        };
        Ok(Served {
            connection,
            socket,
            features,
            memory: memory.clone(),
            wires: Wires::new(Fs::QUEUES).map_err(ShareError::Descriptors)?,
            started: 0,
        })
    }

    /// The connection of an earlier boot, if it stands, or a new one.
    fn connection(&self, path: &Path) -> Result<Arc<Mutex<Connection>>, ShareError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those whose guest never noticed that they are gone are found out here.
        known.retain(|server| lock(&server.connection).check().is_ok());
        if let Some(server) = known.iter().find(|server| server.path == path) {
            return Ok(Arc::clone(&server.connection));
        }
        let connection = Arc::new(Mutex::new(Connection::open(path, Fs::QUEUES)?));
        known.push(Known {
            path: path.to_owned(),
            connection: Arc::clone(&connection),
        });
        Ok(connection)
    }
}

// === impl Served ===

impl Served {
    /// The ends of the wires that are not the server's.
    ///
    /// # Errors
    /// The kernel gives no more descriptors.
    pub fn wires(&self) -> Result<Wires, ShareError> {
        self.wires.try_clone().map_err(ShareError::Descriptors)
    }

    /// What becomes readable when the server is gone.
    pub fn as_raw_fd(&self) -> RawFd {
        self.socket
    }

    /// What a guest's driver has agreed upon, and its memory.
    fn begin(&self, connection: &mut Connection, features: u64) -> io::Result<()> {
        let features = features | PROTOCOL_FEATURES;
        connection.tell(Request::SetFeatures, &features.to_ne_bytes(), &[])?;
        let mut regions = Vec::new();
        let mut files = Vec::new();
        for region in self.memory.iter() {
            let file = region.file_offset().ok_or(io::ErrorKind::Unsupported)?;
            regions.push(Region {
                guest: region.start_addr().raw_value(),
                len: region.len(),
                offset: file.start(),
            });
            files.push(file.file().as_fd());
        }
        connection.tell(Request::SetMemory, &memory(&regions), &files)
    }
}

impl RingServer for Served {
    fn features(&self) -> u64 {
        self.features
    }

    fn start(&mut self, index: usize, rings: Rings, features: u64) -> io::Result<()> {
        let ring = u32::try_from(index).map_err(io::Error::other)?;
        let (kick, call) = match (self.wires.kicks.get(index), self.wires.calls.get(index)) {
            (Some(kick), Some(call)) => (borrowed(kick), borrowed(call)),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let mut connection = lock(&self.connection);
        if self.started == 0 {
            self.begin(&mut connection, features)?;
        }
        let size = ring_state(ring, rings.size.into());
        connection.tell(Request::SetRingSize, &size, &[])?;
        connection.tell(Request::SetRingBase, &ring_state(ring, 0), &[])?;
        connection.tell(Request::SetRingPlace, &ring_place(ring, &rings), &[])?;
        let number = u64::from(ring).to_ne_bytes();
        connection.tell(Request::SetCall, &number, &[call])?;
        connection.tell(Request::SetKick, &number, &[kick])?;
        connection.tell(Request::SetRingEnabled, &ring_state(ring, 1), &[])?;
        drop(connection);
        self.started += 1;
        Ok(())
    }

    fn kick(&mut self, index: usize) -> io::Result<()> {
        lock(&self.connection).check()?;
        if let Some(kick) = self.wires.kicks.get(index) {
            // A counter that is full has rung already.
            kick.write(1).ok();
        }
        Ok(())
    }

    fn stop(&mut self, index: usize) {
        self.started = self.started.saturating_sub(1);
        let mut connection = lock(&self.connection);
        if !connection.is_gone()
            && let Ok(ring) = u32::try_from(index)
        {
            // A server that does not answer is given up; its mapping of guest memory is what it keeps.
            connection.ask(Request::GetRingBase, &ring_state(ring, 0)).ok();
        }
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}
