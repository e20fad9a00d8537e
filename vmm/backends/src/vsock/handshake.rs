//! The first line of a program of the host that wants to reach a port of the guest: `CONNECT 1234\n`.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;

/// Longest line: the word, a space, ten digits, the end of either kind.
const MAX_LINE: usize = 20;

/// A connection whose first line is not whole yet.
pub(super) struct Handshake {
    pub stream: UnixStream,
    line: Vec<u8>,
}

/// How far the line has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// There is more to come.
    Partial,
    /// This port of the guest is wanted.
    Port(u32),
    /// It cannot become one, or the other side is gone.
    Wrong,
}

// === impl Handshake ===

impl Handshake {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            line: Vec::new(),
        }
    }

    /// Reads on, and not one byte further than the line's end: what follows is the guest's.
    pub(super) fn read(&mut self) -> Line {
        let mut byte = [0];
        while self.line.len() < MAX_LINE {
            match (&self.stream).read(&mut byte) {
                Ok(1) if byte == *b"\n" => return port(&self.line).map_or(Line::Wrong, Line::Port),
                Ok(1) => self.line.extend(byte),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Line::Partial,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return Line::Wrong,
            }
        }
        Line::Wrong
    }
}

fn port(line: &[u8]) -> Option<u32> {
    let number = std::str::from_utf8(line).ok()?.strip_prefix("CONNECT ")?;
    number.trim_end_matches('\r').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn said(line: &[u8]) -> (Line, Vec<u8>) {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.write_all(line).unwrap();
        let mut handshake = Handshake::new(ours);
        let line = handshake.read();
        drop(theirs);
        let mut rest = Vec::new();
        handshake.stream.read_to_end(&mut rest).unwrap();
        (line, rest)
    }

    #[test]
    fn a_line_names_a_port_and_what_follows_stays() {
        assert_eq!(
            said(b"CONNECT 1234\nhello\n"),
            (Line::Port(1234), b"hello\n".to_vec())
        );
        assert_eq!(said(b"CONNECT 4294967295\r\n"), (Line::Port(u32::MAX), vec![]));
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut handshake = Handshake::new(ours);
        theirs.write_all(b"CONN").unwrap();
        assert_eq!(handshake.read(), Line::Partial);
        theirs.write_all(b"ECT 7\n").unwrap();
        assert_eq!(handshake.read(), Line::Port(7));
    }

    #[test]
    fn other_lines_are_refused_without_waiting_for_their_end() {
        for line in [
            &b"HELLO 1\n"[..],
            b"CONNECT\n",
            b"CONNECT -1\n",
            b"CONNECT 4294967296\n",
            b"CONNECT 1 2\n",
            b"\n",
            b"\xff\n",
            b"CONNECT 00000000000000000001",
        ] {
            assert_eq!(said(line).0, Line::Wrong, "{line:?}");
        }
        let (theirs, ours) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(Handshake::new(ours).read(), Line::Wrong);
    }
}
