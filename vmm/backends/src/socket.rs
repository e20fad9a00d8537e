//! Unix sockets that others connect to: for their owner alone from the first moment, and never blocking.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Connections that may wait to be accepted.
const WAITING: i32 = 16;

/// The socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on '{path}'")]
pub struct ListenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Binds and listens. Linux gives the file the mode that the socket has when it is bound, so there is no moment in
/// which others may connect.
///
/// # Errors
/// The path is too long, exists already, or cannot be written.
pub fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    bind(path).map_err(|errno| ListenError {
        path: path.to_owned(),
        source: errno.into(),
    })
}

fn bind(path: &Path) -> rustix::io::Result<UnixListener> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, WAITING)?;
    Ok(socket.into())
}

/// Whether there is a socket; whether anybody listens on it is not asked.
///
/// # Errors
/// There is nothing, or something else.
pub(crate) fn is_there(path: &Path) -> io::Result<()> {
    let is_socket = path.metadata()?.file_type().is_socket();
    is_socket
        .then_some(())
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Connects without waiting: where too many wait already, it fails.
///
/// # Errors
/// Nobody listens there, or not for us.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

/// The next connection, non-blocking; `None` when nobody waits any more. What a caller did wrong is his own matter:
/// the next one is taken instead.
pub(crate) fn accept(listener: &UnixListener) -> Option<UnixStream> {
    loop {
        match listener.accept() {
            Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => return Some(stream),
            Err(error) if error.kind() != io::ErrorKind::ConnectionAborted => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_socket_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let _listener = listen(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_path_in_use_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let _first = listen(&path).unwrap();
        let text = listen(&path).unwrap_err().to_string();
        assert_eq!(text, format!("cannot listen on '{}'", path.display()));
    }
}
