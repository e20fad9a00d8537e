//! Servers that do as they should, and servers that do not.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};

use rustix::fs::MemfdFlags;
use vm_memory::{FileOffset, GuestAddress};

use super::message::HEADER;
use super::*;

const RAM: u64 = 0x8000_0000;
const RAM_LEN: usize = 1 << 20;
/// What the good server offers: features of rings, and that of the protocol.
const OFFERED: u64 = 1 << 32 | 1 << 29 | PROTOCOL_FEATURES;
const RINGS: Rings = Rings {
    size: 64,
    descriptors: RAM,
    available: RAM + 0x1000,
    used: RAM + 0x2000,
};

/// A server that does not serve.
type Bad = fn(UnixStream);

fn ram() -> GuestMemoryMmap {
    let file = File::from(rustix::fs::memfd_create("ram", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(RAM_LEN as u64).unwrap();
    let range = (GuestAddress(RAM), RAM_LEN, Some(FileOffset::new(file, 0)));
    GuestMemoryMmap::from_ranges_with_files([range]).unwrap()
}

/// The next message: what is asked for, and the bytes behind the header. Descriptors that go along are lost.
fn heard(stream: &mut UnixStream) -> Option<(u32, Vec<u8>)> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).ok()?;
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
    assert_eq!(word(4), 1, "version 1, no answer wanted to what has none");
    let mut body = vec![0; word(8) as usize];
    stream.read_exact(&mut body).unwrap();
    Some((word(0), body))
}

fn answer(stream: &mut UnixStream, request: u32, value: u64) {
    let words = [request, 5, 8].map(u32::to_ne_bytes).concat();
    stream
        .write_all(&[&words[..], &value.to_ne_bytes()].concat())
        .unwrap();
}

/// Answers as virtiofsd does until the other side hangs up; gives what it heard, in order.
fn good(mut stream: UnixStream) -> Vec<u32> {
    let mut all = Vec::new();
    while let Some((request, _)) = heard(&mut stream) {
        all.push(request);
        match request {
            1 => answer(&mut stream, 1, OFFERED),
            15 => answer(&mut stream, 15, 0xffff),
            17 => answer(&mut stream, 17, 2),
            11 => answer(&mut stream, 11, 0),
            _ => {}
        }
    }
    all
}

/// A folder with a socket, and a server behind it that takes one guest.
fn serving<T: Send + 'static>(
    serve: impl FnOnce(UnixStream) -> T + Send + 'static,
) -> (tempfile::TempDir, PathBuf, JoinHandle<T>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fs.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        drop(listener);
        serve(stream)
    });
    (folder, path, server)
}

fn text(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

#[test]
fn a_server_hears_all_it_needs_in_its_order_and_no_more() {
    let (_folder, path, server) = serving(good);
    let servers = Servers::default();
    let mut served = servers.serve(&path, &ram()).unwrap();
    assert_eq!(served.features(), OFFERED & !PROTOCOL_FEATURES);
    served.start(0, RINGS, 1 << 32).unwrap();
    served.start(1, RINGS, 1 << 32).unwrap();
    served.stop(0);
    served.stop(1);
    drop((served, servers));
    let agreed = [1, 15, 16, 3, 17];
    let queue = [8, 10, 9, 13, 12, 18];
    let all = [&agreed[..], &[2, 5], &queue, &queue, &[11, 11]].concat();
    assert_eq!(server.join().unwrap(), all);
}

#[test]
fn the_next_boot_goes_on_with_the_same_connection_and_its_own_memory() {
    let (_folder, path, server) = serving(good);
    let servers = Servers::default();
    for _ in 0..2 {
        let mut served = servers.serve(&path, &ram()).unwrap();
        served.start(1, RINGS, 1 << 32).unwrap();
        served.stop(1);
    }
    drop(servers);
    let all = server.join().unwrap();
    let count = |request| all.iter().filter(|heard| **heard == request).count();
    assert_eq!((count(3), count(2), count(5)), (1, 2, 2));
}

#[test]
fn a_kick_and_a_call_are_the_other_ends_of_what_the_server_has() {
    let (_folder, path, server) = serving(good);
    let servers = Servers::default();
    let mut served = servers.serve(&path, &ram()).unwrap();
    let wires = served.wires().unwrap();
    served.start(1, RINGS, 0).unwrap();
    served.kick(1).unwrap();
    assert_eq!(served.wires.kicks[1].read().unwrap(), 1);
    wires.kicks[1].write(1).unwrap();
    assert_eq!(served.wires.kicks[1].read().unwrap(), 1);
    served.wires.calls[0].write(1).unwrap();
    assert_eq!(wires.calls[0].read().unwrap(), 1);
    drop((served, servers));
    server.join().unwrap();
}

#[test]
fn a_server_that_dies_is_found_gone_and_nobody_waits_for_it() {
    let (_folder, path, server) = serving(|mut stream| {
        for request in [1, 15] {
            assert_eq!(heard(&mut stream).unwrap().0, request);
            answer(&mut stream, request, u64::MAX);
        }
        assert_eq!(heard(&mut stream).unwrap().0, 16);
        assert_eq!(heard(&mut stream).unwrap().0, 3);
        assert_eq!(heard(&mut stream).unwrap().0, 17);
        answer(&mut stream, 17, 2);
    });
    let servers = Servers::default();
    let mut served = servers.serve(&path, &ram()).unwrap();
    server.join().unwrap();
    assert!(served.kick(0).is_err());
    assert!(served.start(0, RINGS, 0).is_err());
    served.stop(0);
    let again = servers.serve(&path, &ram()).map(drop).unwrap_err();
    let said = again.to_string();
    assert!(
        said.starts_with("cannot connect to virtiofsd at '")
            && said.contains("start it with: virtiofsd --socket-path"),
        "{said}"
    );
}

#[test]
fn a_server_that_says_what_was_not_asked_is_given_up() {
    let (_folder, path, server) = serving(|mut stream| {
        let mut heard_all = good_until(&mut stream, 17);
        stream.write_all(b"x").unwrap();
        while let Some((request, _)) = heard(&mut stream) {
            heard_all.push(request);
        }
        heard_all
    });
    let mut served = Servers::default().serve(&path, &ram()).unwrap();
    let mut came = [rustix::event::PollFd::from_borrowed_fd(
        // Whoever watches the connection learns of it.
        borrowed_socket(&served),
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut came, None).unwrap();
    assert_eq!(
        served.kick(0).unwrap_err().to_string(),
        "it says what nobody asked for"
    );
    served.stop(0);
    drop(served);
    assert_eq!(
        server.join().unwrap(),
        [1, 15, 16, 3, 17],
        "it is told nothing more"
    );
}

#[test]
fn what_is_no_server_is_refused_in_one_line() {
    let unsuitable: [(Bad, &str); 5] = [
        (drop, "does not speak vhost-user as virtiofsd does"),
        (
            |mut stream| {
                heard(&mut stream);
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
            },
            "it answers something else",
        ),
        (
            |mut stream| {
                heard(&mut stream);
                answer(&mut stream, 1, 1 << 32);
            },
            "it lacks the protocol's features",
        ),
        (
            |mut stream| {
                heard(&mut stream);
                stream.write_all(&1u32.to_ne_bytes()).unwrap();
            },
            "does not speak vhost-user",
        ),
        (
            |mut stream| {
                for (request, value) in [(1, u64::MAX), (15, 1)] {
                    heard(&mut stream);
                    answer(&mut stream, request, value);
                }
                heard(&mut stream);
                heard(&mut stream);
                heard(&mut stream);
                answer(&mut stream, 17, 1);
            },
            "serves 1 queues; a file system needs 2",
        ),
    ];
    for (serve, expected) in unsuitable {
        let (_folder, path, server) = serving(serve);
        let error = Servers::default().serve(&path, &ram()).map(drop).unwrap_err();
        let said = text(&error);
        assert!(said.contains(expected), "{said}");
        server.join().unwrap();
    }
}

#[test]
fn memory_that_is_no_file_cannot_be_served() {
    let (_folder, path, server) = serving(good);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(RAM), RAM_LEN)]).unwrap();
    let servers = Servers::default();
    let mut served = servers.serve(&path, &memory).unwrap();
    assert!(served.start(0, RINGS, 0).is_err());
    drop((served, servers));
    server.join().unwrap();
}

#[test]
fn a_path_without_a_socket_is_no_server() {
    let folder = tempfile::tempdir().unwrap();
    assert!(probe(folder.path()).is_err());
    assert!(probe(&folder.path().join("none")).is_err());
}

/// Answers well up to this request, and says what it heard.
fn good_until(stream: &mut UnixStream, last: u32) -> Vec<u32> {
    let mut all = Vec::new();
    while all.last() != Some(&last) {
        let (request, _) = heard(stream).unwrap();
        all.push(request);
        match request {
            3 | 16 => {}
            1 => answer(stream, 1, OFFERED),
            15 => answer(stream, 15, 1),
            _ => answer(stream, request, 2),
        }
    }
    all
}

fn borrowed_socket(served: &Served) -> BorrowedFd<'_> {
    #[expect(
        unsafe_code,
        reason = "the event loop, too, knows descriptors by their numbers"
    )]
    // SAFETY: the connection is open for as long as the server is borrowed.
    unsafe {
        BorrowedFd::borrow_raw(served.as_raw_fd())
    }
}
