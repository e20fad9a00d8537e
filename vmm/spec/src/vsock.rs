//! Sockets between the guest and the host, without a network.

use std::path::{Path, PathBuf};

use crate::error::SpecError;
use crate::limits::MAX_VSOCK_PATH;

/// The first number that a guest may have: those below are the host's and everyone's.
const FIRST_CID: u32 = 3;

/// The guest's sockets (`AF_VSOCK`) and where they lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vsock {
    cid: u32,
    socket: PathBuf,
}

// === impl Vsock ===

impl Vsock {
    /// Programs of the host connect to the Unix socket `socket` and say `CONNECT PORT`; when the guest connects to a
    /// port of the host, whoever listens on `socket` with `_PORT` appended is reached.
    ///
    /// # Errors
    /// A number that no guest can have, or a path that no socket can have.
    pub fn new(cid: u32, socket: impl Into<PathBuf>) -> Result<Self, SpecError> {
        let socket = socket.into();
        let length = socket.as_os_str().len();
        if cid < FIRST_CID || cid == u32::MAX {
            return Err(SpecError::Cid(cid));
        }
        if length == 0 || length > MAX_VSOCK_PATH {
            return Err(SpecError::VsockPath(socket));
        }
        Ok(Self { cid, socket })
    }

    /// The guest's number in addresses.
    pub fn cid(&self) -> u32 {
        self.cid
    }

    /// Where programs of the host connect.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_mean_someone_else_are_refused() {
        for cid in [0, 1, 2, u32::MAX] {
            assert_eq!(Vsock::new(cid, "/s"), Err(SpecError::Cid(cid)));
        }
        assert_eq!(Vsock::new(3, "/s").unwrap().cid(), 3);
    }

    #[test]
    fn a_path_leaves_room_for_every_port() {
        assert!(Vsock::new(3, "x".repeat(MAX_VSOCK_PATH)).is_ok());
        let long = PathBuf::from("x".repeat(MAX_VSOCK_PATH + 1));
        assert_eq!(Vsock::new(3, &long), Err(SpecError::VsockPath(long.clone())));
        assert_eq!(Vsock::new(3, ""), Err(SpecError::VsockPath(PathBuf::new())));
    }
}
