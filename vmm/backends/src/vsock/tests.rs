//! The muxer between a well-meaning or hostile guest and programs of the host: checklist E.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;
use connection::BUFFER;

/// A guest that says packets and hears them.
struct Guest {
    muxer: Muxer,
    folder: tempfile::TempDir,
}

/// What the guest hears.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    host_port: u32,
    guest_port: u32,
    op: Op,
    data: Vec<u8>,
}

const SHUT: Op = Op::Shutdown {
    receive: true,
    send: true,
};
const NO_MORE: Op = Op::Shutdown {
    receive: false,
    send: true,
};

impl Guest {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let muxer = Muxer::listen(&folder.path().join("v.sock")).unwrap();
        Self { muxer, folder }
    }

    /// A program of the host that serves this port.
    fn server(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.folder.path().join(format!("v.sock_{port}"))).unwrap()
    }

    /// A program of the host that wants something of the guest.
    fn client(&self, line: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.folder.path().join("v.sock")).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream
    }

    fn say_with(&mut self, (host_port, guest_port): (u32, u32), op: Op, credit: (u32, u32), data: &[u8]) {
        let packet = Packet {
            guest_port,
            host_port,
            op,
            buffer: credit.0,
            forwarded: credit.1,
        };
        self.muxer.send(&packet, data);
    }

    fn say(&mut self, ports: (u32, u32), op: Op) {
        self.say_with(ports, op, (0x1_0000, 0), &[]);
    }

    fn send(&mut self, ports: (u32, u32), data: &[u8]) {
        self.say_with(ports, Op::Data, (0x1_0000, 0), data);
    }

    fn hear(&mut self) -> Option<Heard> {
        let mut data = [0; 0x4000];
        let (packet, len) = self.muxer.receive(&mut data)?;
        Some(Heard {
            host_port: packet.host_port,
            guest_port: packet.guest_port,
            op: packet.op,
            data: data[..len].to_vec(),
        })
    }

    fn ops(&mut self) -> Vec<Op> {
        std::iter::from_fn(|| self.hear()).map(|heard| heard.op).collect()
    }

    /// A connection of the guest to a program of the host.
    fn connected(&mut self, port: u32) -> UnixStream {
        let server = self.server(port);
        self.say((port, 1000), Op::Request);
        assert_eq!(self.ops(), [Op::Response]);
        server.accept().unwrap().0
    }

    /// A connection of a program of the host to port 7 of the guest, and our port.
    fn called(&mut self) -> (UnixStream, u32) {
        let mut client = self.client("CONNECT 7\n");
        let request = self.hear().unwrap();
        assert_eq!((request.op, request.guest_port), (Op::Request, 7));
        self.say((request.host_port, 7), Op::Response);
        let mut line = [0; 14];
        client.read_exact(&mut line).unwrap();
        assert_eq!(line.to_vec(), format!("OK {}\n", request.host_port).into_bytes());
        (client, request.host_port)
    }
}

fn left(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_guest_reaches_a_program_and_both_speak() {
    let mut guest = Guest::new();
    let mut host = guest.connected(52);
    guest.send((52, 1000), b"from the guest");
    let mut bytes = [0; 14];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"from the guest");
    host.write_all(b"from the host").unwrap();
    let wanted = Heard {
        host_port: 52,
        guest_port: 1000,
        op: Op::Data,
        data: b"from the host".to_vec(),
    };
    assert_eq!(guest.hear(), Some(wanted));
    assert_eq!(guest.hear(), None);
}

#[test]
fn a_port_that_nobody_serves_is_reset() {
    let mut guest = Guest::new();
    guest.say((53, 1000), Op::Request);
    let wanted = Heard {
        host_port: 53,
        guest_port: 1000,
        op: Op::Reset,
        data: vec![],
    };
    assert_eq!((guest.hear(), guest.hear()), (Some(wanted), None));
}

#[test]
fn a_program_reaches_a_port_of_the_guest_and_is_told_its_own() {
    let mut guest = Guest::new();
    let (mut client, port) = guest.called();
    client.write_all(b"hello").unwrap();
    assert_eq!(guest.hear().unwrap().data, b"hello");
    guest.send((port, 7), b"bye");
    guest.say((port, 7), SHUT);
    assert_eq!((guest.ops(), left(&client)), (vec![Op::Reset], b"bye".to_vec()));
}

#[test]
fn what_follows_the_first_line_waits_for_the_guest() {
    let mut guest = Guest::new();
    let client = guest.client("CONNECT 7\nearly");
    let request = guest.hear().unwrap();
    assert_eq!(guest.hear(), None);
    guest.say((request.host_port, 7), Op::Response);
    assert_eq!(guest.hear().unwrap().data, b"early");
    drop(client);
}

#[test]
fn a_port_of_the_guest_that_nobody_serves_closes_the_stream() {
    let mut guest = Guest::new();
    let client = guest.client("CONNECT 7\n");
    let request = guest.hear().unwrap();
    guest.say((request.host_port, 7), Op::Reset);
    assert_eq!((left(&client), guest.hear()), (vec![], None));
}

#[test]
fn a_wrong_first_line_closes_the_stream() {
    let mut guest = Guest::new();
    let client = guest.client("GET / HTTP/1.1\n");
    assert_eq!(guest.hear(), None);
    let mut bytes = Vec::new();
    let ended = (&client).read_to_end(&mut bytes);
    assert!(bytes.is_empty() && ended.is_ok_and(|count| count == 0) || guest.muxer.handshakes.is_empty());
}

#[test]
fn the_end_of_one_direction_leaves_the_other_open() {
    let mut guest = Guest::new();
    let mut host = guest.connected(52);
    host.write_all(b"last").unwrap();
    host.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(guest.ops(), [Op::Data, NO_MORE]);
    guest.send((52, 1000), b"answer");
    guest.say((52, 1000), NO_MORE);
    assert_eq!((guest.ops(), left(&host)), (vec![Op::Reset], b"answer".to_vec()));
}

#[test]
fn a_program_that_is_gone_ends_the_connection() {
    let mut guest = Guest::new();
    let mut host = guest.connected(52);
    host.write_all(b"last").unwrap();
    drop(host);
    assert_eq!(guest.ops(), [Op::Data, NO_MORE, Op::Reset]);
    guest.send((52, 1000), b"to nobody");
    assert_eq!(guest.ops(), [Op::Reset]);
}

#[test]
fn data_waits_until_the_guest_has_room() {
    let mut guest = Guest::new();
    let server = guest.server(52);
    guest.say_with((52, 1000), Op::Request, (4, 0), &[]);
    assert_eq!(guest.ops(), [Op::Response]);
    let mut host = server.accept().unwrap().0;
    host.write_all(b"0123456789").unwrap();
    assert_eq!(guest.hear().unwrap().data, b"0123");
    assert_eq!(guest.ops(), [Op::CreditRequest]);
    guest.say_with((52, 1000), Op::CreditUpdate, (4, 3), &[]);
    assert_eq!(guest.hear().unwrap().data, b"456");
    assert_eq!(guest.ops(), [Op::CreditRequest]);
    guest.say_with((52, 1000), Op::CreditUpdate, (4, 7), &[]);
    assert_eq!(guest.hear().unwrap().data, b"789");
}

#[test]
fn a_slow_reader_s_data_is_kept_up_to_the_credit_and_then_delivered() {
    let mut guest = Guest::new();
    let host = guest.connected(52);
    let chunk = [7; 0x1_0000];
    (0..4).for_each(|_| guest.send((52, 1000), &chunk));
    let mut all = vec![0; 4 * chunk.len()];
    host.set_nonblocking(true).unwrap();
    let mut got = 0;
    while got < all.len() {
        got += (&host).read(&mut all[got..]).unwrap_or(0);
        while guest.hear().is_some() {}
    }
    assert_eq!(all, vec![7; 4 * chunk.len()]);
}

#[test]
fn data_beyond_the_credit_ends_the_connection() {
    let mut guest = Guest::new();
    let _host = guest.connected(52);
    let chunk = [7; 0x1_0000];
    let sent = (0..64)
        .take_while(|_| {
            guest.send((52, 1000), &chunk);
            guest.muxer.connections.len() == 1
        })
        .count();
    // What the socket took, and what waits.
    assert!((BUFFER as usize / chunk.len()..64).contains(&sent), "{sent}");
    assert_eq!(guest.ops(), [Op::Reset]);
}

#[test]
fn the_guest_hears_of_room_after_a_part_of_the_buffer() {
    let mut guest = Guest::new();
    let mut host = guest.connected(52);
    let mut bytes = [0; 0x1_0000];
    guest.send((52, 1000), &bytes);
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(guest.ops(), [Op::CreditUpdate]);
    guest.send((52, 1000), b"little");
    assert_eq!(guest.ops(), []);
    guest.say((52, 1000), Op::CreditRequest);
    assert_eq!(guest.ops(), [Op::CreditUpdate]);
}

#[test]
fn packets_out_of_order_are_reset() {
    let mut guest = Guest::new();
    for op in [Op::Response, Op::Data, Op::CreditUpdate, Op::CreditRequest, SHUT] {
        guest.say((9, 9), op);
        assert_eq!(guest.ops(), [Op::Reset], "{op:?}");
    }
    guest.say((9, 9), Op::Reset);
    assert_eq!(guest.ops(), []);
    let _host = guest.connected(52);
    guest.say((52, 1000), Op::Response);
    assert_eq!(guest.ops(), [Op::Reset]);
    let client = guest.client("CONNECT 7\n");
    let port = guest.hear().unwrap().host_port;
    guest.send((port, 7), b"too early");
    assert_eq!((guest.ops(), left(&client)), (vec![Op::Reset], vec![]));
}

#[test]
fn a_second_request_ends_the_first_connection() {
    let mut guest = Guest::new();
    let host = guest.connected(52);
    guest.say((52, 1000), Op::Request);
    assert_eq!((guest.ops(), left(&host)), (vec![Op::Reset], vec![]));
}

#[test]
fn data_after_the_end_of_file_ends_the_connection() {
    let mut guest = Guest::new();
    let _host = guest.connected(52);
    guest.say((52, 1000), NO_MORE);
    guest.send((52, 1000), b"more");
    assert_eq!(guest.ops(), [Op::Reset]);
}

#[test]
fn a_flood_of_connections_is_held_to_the_limit() {
    let mut guest = Guest::new();
    let server = guest.server(52);
    server.set_nonblocking(true).unwrap();
    let mut hosts = Vec::new();
    for port in 0..1000 {
        guest.say((52, port), Op::Request);
        hosts.extend(server.accept().ok());
    }
    assert_eq!(
        (guest.muxer.connections.len(), hosts.len()),
        (MAX_CONNECTIONS, MAX_CONNECTIONS)
    );
    let (accepted, refused): (Vec<_>, Vec<_>) = guest.ops().into_iter().partition(|op| *op == Op::Response);
    assert_eq!((accepted.len(), refused.len()), (MAX_CONNECTIONS, MAX_RESETS));
}

#[test]
fn a_flood_at_the_door_is_held_to_the_limit() {
    let mut guest = Guest::new();
    let clients: Vec<_> = (0..MAX_HANDSHAKES + 10)
        .map(|_| {
            let client = guest.client("CONN");
            guest.hear();
            client
        })
        .collect();
    assert_eq!(guest.muxer.handshakes.len(), MAX_HANDSHAKES);
    drop(clients);
    guest.hear();
    assert_eq!(guest.muxer.handshakes.len(), 0);
}

#[test]
fn a_reset_of_the_guest_closes_all_streams_and_the_door_stays_open() {
    let mut guest = Guest::new();
    let host = guest.connected(52);
    guest.say((9, 9), Op::Data);
    guest.muxer.reset();
    assert_eq!((left(&host), guest.ops()), (vec![], vec![]));
    guest.called();
}

#[test]
fn the_descriptor_tells_of_answers_and_of_sockets() {
    let mut guest = Guest::new();
    let is_ready = |guest: &Guest| {
        let mut fds = [rustix::event::PollFd::new(
            &guest.muxer.epoll,
            rustix::event::PollFlags::IN,
        )];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        rustix::event::poll(&mut fds, Some(&now)).unwrap() == 1
    };
    assert!(!is_ready(&guest));
    guest.say((9, 9), Op::Data);
    assert!(is_ready(&guest));
    guest.ops();
    assert!(!is_ready(&guest));
    let mut host = guest.connected(52);
    assert!(!is_ready(&guest));
    host.write_all(b"x").unwrap();
    assert!(is_ready(&guest));
}

#[test]
fn a_path_in_use_is_named_and_a_muxer_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.sock");
    let muxer = Muxer::listen(&path).unwrap();
    assert!(matches!(Muxer::listen(&path), Err(VsockError::Listen(_))));
    drop(muxer);
    assert!(!path.exists());
}
