//! The server's end of one connection, without the socket: bytes in, calls out; lines in, bytes out.
//!
//! rvmm's event loop owns the socket. It feeds what it read, answers the calls it gets, and writes what
//! [`Session::pending`] holds for as long as the socket takes it. A client that does not read is given up once
//! [`MAX_PENDING`] bytes wait for it, so that it cannot make rvmm grow.

use crate::frame::{Lines, MAX_LINE};
use crate::message::{Call, Event, Line, Refusal, RefusalCode, Reply, VERSION};

/// Most bytes that wait for a client that does not read.
pub const MAX_PENDING: usize = 4 * MAX_LINE;

/// State of one connection.
#[derive(Debug, Default)]
pub struct Session {
    lines: Lines,
    pending: Vec<u8>,
    subscribed: bool,
    broken: bool,
}

// === impl Session ===

impl Session {
    /// Adds what the client sent.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.lines.feed(bytes);
    }

    /// The next call to answer. What is not a call of our version is answered here, with a refusal.
    pub fn next_call(&mut self) -> Option<Call> {
        loop {
            let line = match self.lines.next_line() {
                Ok(line) => line?,
                Err(too_long) => {
                    self.answer(0, refused(too_long.to_string()));
                    self.broken = true;
                    return None;
                }
            };
            match serde_json::from_slice::<Call>(&line) {
                Ok(call) if call.v == VERSION => return Some(call),
                Ok(call) => {
                    let text = format!("version {} is not spoken here, version {VERSION} is", call.v);
                    self.answer(call.id, refused(text));
                }
                Err(error) => self.answer(0, refused(format!("not a request: {error}"))),
            }
        }
    }

    /// Queues the answer to a call.
    pub fn answer(&mut self, id: u64, reply: Reply) {
        self.send(&Line::Answer { id, reply });
    }

    /// From now on events are sent.
    pub fn subscribe(&mut self) {
        self.subscribed = true;
    }

    /// Queues an event, if the client wants them.
    pub fn notify(&mut self, event: &Event) {
        if self.subscribed {
            self.send(&Line::Event { event: event.clone() });
        }
    }

    /// What waits to be written.
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// This many bytes of [`Session::pending`] were written.
    pub fn written(&mut self, count: usize) {
        self.pending.drain(..count.min(self.pending.len()));
    }

    /// Whether the connection should be closed once nothing is pending.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    fn send(&mut self, line: &Line) {
        if self.pending.len() > MAX_PENDING {
            self.broken = true;
            return;
        }
        let json = serde_json::to_vec(line).expect("messages hold only strings and numbers");
        self.pending.extend_from_slice(&json);
        self.pending.push(b'\n');
    }
}

fn refused(message: String) -> Reply {
    Reply::Refused(Refusal::new(RefusalCode::Request, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Request;

    #[test]
    fn a_call_cut_in_two_is_understood() {
        let mut session = Session::default();
        session.feed(br#"{"v":1,"id":3,"req"#);
        assert_eq!(session.next_call(), None);
        session.feed(b"uest\":\"kill\"}\n");
        assert_eq!(
            session.next_call(),
            Some(Call {
                v: 1,
                id: 3,
                request: Request::Kill
            })
        );
    }

    #[test]
    fn nonsense_is_refused_and_the_session_goes_on() {
        let mut session = Session::default();
        session.feed(
            b"hello\n{\"v\":9,\"id\":4,\"request\":\"info\"}\n{\"v\":1,\"id\":5,\"request\":\"info\"}\n",
        );
        assert_eq!(session.next_call().map(|call| call.id), Some(5));
        let text = String::from_utf8(session.pending().to_vec()).unwrap();
        assert!(
            text.contains("not a request") && text.contains("version 9 is not spoken here"),
            "{text}"
        );
        assert!(!session.is_broken());
    }

    #[test]
    fn a_client_that_never_reads_is_given_up() {
        let mut session = Session::default();
        session.subscribe();
        for _ in 0..MAX_PENDING {
            session.notify(&Event::Reset);
        }
        assert!(session.is_broken());
        assert!(session.pending().len() <= MAX_PENDING + MAX_LINE);
    }
}
