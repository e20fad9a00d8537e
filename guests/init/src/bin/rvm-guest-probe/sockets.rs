//! Sockets between guest and host, both ends: so that a test has a program on either side.
//!
//! Each speaks once: it sends a text, says that there is no more, and gives back all that it hears until the other side
//! says the same.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, Shutdown, SocketType};

/// The host's number, and that of whoever comes.
const HOST: u32 = 2;
const ANYONE: u32 = u32::MAX;
/// Most bytes that are heard.
const MAX_ANSWER: u64 = 1 << 20;

/// `struct sockaddr_vm`.
#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    zero: [u8; 4],
}

// === impl Address ===

impl Address {
    fn new(cid: u32, port: u32) -> Self {
        Self {
            family: AddressFamily::VSOCK.as_raw(),
            reserved: 0,
            port,
            cid,
            zero: [0; 4],
        }
    }
}

#[expect(unsafe_code, reason = "rustix knows no addresses of this family")]
// SAFETY: the closure gets a pointer to a whole `struct sockaddr_vm` and its length, valid for the call.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        let length = SocketAddrLen::try_from(size_of::<Self>()).unwrap_or(0);
        f((&raw const *self).cast(), length)
    }
}

/// In the guest: says `text` to this port of the host, and returns the answer.
pub fn ask_host(port: u32, text: &str) -> io::Result<String> {
    let socket = rustix::net::socket(AddressFamily::VSOCK, SocketType::STREAM, None)?;
    rustix::net::connect(&socket, &Address::new(HOST, port))?;
    speak(socket, text)
}

/// In the guest: answers the first who comes to this port with what he said, in capitals.
pub fn answer_host(port: u32) -> io::Result<String> {
    let socket = rustix::net::socket(AddressFamily::VSOCK, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &Address::new(ANYONE, port))?;
    rustix::net::listen(&socket, 1)?;
    writeln!(io::stdout(), "listening")?;
    answer(rustix::net::accept(&socket)?)
}

/// On the host: says `text` to whoever listens at this path, and returns the answer.
pub fn ask_path(path: &str, text: &str) -> io::Result<String> {
    speak(UnixStream::connect(path)?.into(), &text.replace('/', "\n"))
}

/// On the host: answers the first who comes to this path with what he said, in capitals.
pub fn answer_path(path: &str) -> io::Result<String> {
    let listener = UnixListener::bind(path)?;
    writeln!(io::stdout(), "listening")?;
    answer(listener.accept()?.0.into())
}

fn speak(socket: OwnedFd, text: &str) -> io::Result<String> {
    let mut stream = File::from(socket);
    stream.write_all(text.as_bytes())?;
    end(&stream)?;
    hear(&stream)
}

fn answer(socket: OwnedFd) -> io::Result<String> {
    let mut stream = File::from(socket);
    let heard = hear(&stream)?;
    stream.write_all(heard.to_uppercase().as_bytes())?;
    end(&stream)?;
    Ok(heard)
}

fn hear(stream: &File) -> io::Result<String> {
    let mut heard = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut heard)?;
    Ok(heard)
}

fn end(stream: &File) -> io::Result<()> {
    Ok(rustix::net::shutdown(stream, Shutdown::Write)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_hear_each_other_over_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let path = path.to_str().unwrap();
        let listener = UnixListener::bind(path).unwrap();
        let server = std::thread::spawn(move || answer(listener.accept().unwrap().0.into()).unwrap());
        assert_eq!(ask_path(path, "CONNECT 7/hello").unwrap(), "CONNECT 7\nHELLO");
        assert_eq!(server.join().unwrap(), "CONNECT 7\nhello");
    }
}
