//! Ways to misuse the socket device.
//!
//! The machine's harness lets the host's port [`LOOP`] lead to where programs of the host ask for ports of the guest: so
//! the guest can be at both ends of a connection, without anybody else's help.

use super::bare::{fill, load16, load32, store8, store16, store32, store64};
use super::virtio::{Virtio, WRITE};
use super::{DATA, Verdict, life, vsock};

/// The guest's number, and the host's.
pub const GUEST: u64 = 3;
/// The host's.
pub const HOST: u64 = 2;
/// A port of the host where somebody listens.
pub const LOOP: u64 = 5;
/// One where nobody does.
pub const NOBODY: u64 = 6;
/// Our end.
pub const OURS: u64 = 1000;

/// A new connection.
pub const REQUEST: u64 = 1;
/// It stands.
pub const RESPONSE: u64 = 2;
/// There is none, or no longer.
pub const RESET: u64 = 3;
/// No more of it.
pub const SHUTDOWN: u64 = 4;
/// Data.
pub const DATA_PACKET: u64 = 5;
/// Room.
pub const CREDIT: u64 = 6;
/// How much room?
pub const CREDIT_REQUEST: u64 = 7;

const RECEIVE: u64 = 0;
const TRANSMIT: u64 = 1;
const HEADER_LEN: u64 = 44;
/// Buffers for what comes: so many, so long, in memory of the device's arena that nothing else is in.
const ROOMS: u64 = 64;
const ROOM: u64 = 0x400;
const ROOMS_AT: u64 = 0x8000;

/// A packet's header.
#[derive(Clone, Copy)]
pub struct Packet {
    /// From whom, and to whom.
    pub cids: (u64, u64),
    /// From which port, to which port.
    pub ports: (u64, u64),
    /// How many bytes it says that it has.
    pub len: u64,
    /// Which kind of socket.
    pub kind: u64,
    /// What it wants.
    pub op: u64,
    /// Flags.
    pub flags: u64,
    /// Its sender's room, and how much has left that.
    pub credit: (u64, u64),
}

/// A well-formed packet on the connection that cases use.
pub fn packet(op: u64) -> Packet {
    Packet {
        cids: (GUEST, HOST),
        ports: (OURS, LOOP),
        len: 0,
        kind: 1,
        op,
        flags: 0,
        credit: (0x1_0000, 0),
    }
}

// === impl Virtio: sockets ===

impl Virtio {
    fn room(self, index: u64) -> u64 {
        self.buffer(ROOMS_AT) + ROOM * index
    }

    /// Gives the device buffers for what comes.
    pub fn listens(self) -> Self {
        fill(self.room(0), ROOM * ROOMS, 0);
        (0..ROOMS).for_each(|index| {
            self.descriptor(RECEIVE, index, self.room(index), ROOM, WRITE, 0)
                .offer(RECEIVE, index);
        });
        self.kick(RECEIVE)
    }

    /// Writes a header at the usual place.
    pub fn head(self, packet: Packet) -> Self {
        let at = self.buffer(DATA);
        store64(at, packet.cids.0);
        store64(at + 8, packet.cids.1);
        store32(at + 16, packet.ports.0);
        store32(at + 20, packet.ports.1);
        store32(at + 24, packet.len);
        store16(at + 28, packet.kind);
        store16(at + 30, packet.op);
        store32(at + 32, packet.flags);
        store32(at + 36, packet.credit.0);
        store32(at + 40, packet.credit.1);
        self
    }

    /// Sends a packet behind whose header so many bytes follow, and waits until the device has taken it.
    pub fn sends(self, packet: Packet, data: u64) -> Verdict {
        let taken = self.used_count(TRANSMIT);
        self.head(packet)
            .lay(TRANSMIT, &[(self.buffer(DATA), HEADER_LEN + data, 0)])
            .offer(TRANSMIT, 0)
            .kick(TRANSMIT)
            .wait_patiently(TRANSMIT, taken + 1)
    }

    /// What the `turn`th packet that came wants, counted from 0; none if it does not come.
    pub fn hears(self, turn: u64) -> Option<u64> {
        let came = self.wait_patiently(RECEIVE, turn + 1) == Verdict::Answered;
        came.then(|| load16(self.heard_at(turn) + 30))
    }

    fn heard_at(self, turn: u64) -> u64 {
        let entry = self.used(RECEIVE) + 4 + 8 * (turn % self.ring_size(RECEIVE).max(1));
        self.room(load32(entry) % ROOMS)
    }

    /// Whether nothing has come but so many packets, once another device has answered: twice, since what is due may come
    /// behind the first of these answers.
    pub fn hears_no_more_than(self, count: u64) -> bool {
        life::let_others_work();
        life::let_others_work();
        self.used_count(RECEIVE) <= count
    }
}

/// What is done to a socket device that has buffers for what comes.
pub fn socket(act: impl FnOnce(Virtio) -> Verdict) -> Verdict {
    vsock().map_or(Verdict::Absent, |device| act(device.listens()))
}

/// The same without buffers.
pub fn bare_socket(act: impl FnOnce(Virtio) -> Verdict) -> Verdict {
    vsock().map_or(Verdict::Absent, act)
}

/// What the host makes of one packet: an answer that goes on, or a reset, or silence.
pub fn asked(packet: Packet, data: u64) -> Verdict {
    socket(|d| match d.sends(packet, data) {
        Verdict::Answered if d.hears_no_more_than(0) => Verdict::Refused,
        Verdict::Answered => Verdict::answered_if(d.hears(0) != Some(RESET)),
        other => other,
    })
}

/// What is done on a connection that stands.
pub fn connected(act: impl FnOnce(Virtio) -> Verdict) -> Verdict {
    socket(|d| {
        let stands = d.sends(packet(REQUEST), 0) == Verdict::Answered && d.hears(0) == Some(RESPONSE);
        act(d).unless(!stands, "the host does not take a connection")
    })
}

/// One packet on a connection that stands; refused where that ends it.
pub fn on_connection(packet: Packet, data: u64) -> Verdict {
    connected(|d| match d.sends(packet, data) {
        Verdict::Answered => still_stands(d),
        other => other,
    })
}

/// Whether the host still knows the connection: it is asked for its room.
pub fn still_stands(d: Virtio) -> Verdict {
    let _ = d.sends(packet(CREDIT_REQUEST), 0);
    let last = (1..ROOMS)
        .map(|turn| d.hears(turn))
        .find(|heard| matches!(heard, None | Some(CREDIT | RESET)));
    Verdict::answered_if(last == Some(Some(CREDIT)))
}

/// The host hangs up: the end of its direction, or a reset where it has left words unread.
pub fn hangs_up(d: Virtio, said: Verdict) -> Verdict {
    let ended = matches!(d.hears(1), Some(SHUTDOWN | RESET));
    said.unless(!ended, "the host does not hang up")
}

/// Words on a connection.
pub fn says(d: Virtio, words: &[u8]) -> Verdict {
    (HEADER_LEN..)
        .zip(words)
        .for_each(|(place, &byte)| store8(d.buffer(DATA) + place, u64::from(byte)));
    let len = words.len() as u64;
    d.sends(
        Packet {
            len,
            ..packet(DATA_PACKET)
        },
        len,
    )
}

/// A connection by which the guest asks for its own port 7: the host's half of it is the second one.
pub fn to_oneself(act: impl FnOnce(Virtio, Packet) -> Verdict) -> Verdict {
    connected(|d| {
        let said = says(d, b"CONNECT 7\n") == Verdict::Answered;
        let asks = said && d.hears(1) == Some(REQUEST);
        let theirs = load32(d.heard_at(1) + 16);
        let answer = Packet {
            ports: (7, theirs),
            ..packet(RESPONSE)
        };
        act(d, answer).unless(!asks, "the host does not ask the guest")
    })
}

/// What goes in at one end comes out at the other one.
pub fn echo() -> Verdict {
    to_oneself(|d, answer| {
        let stands = d.sends(answer, 0) == Verdict::Answered && d.hears(2) == Some(DATA_PACKET);
        let said = says(d, b"12345678") == Verdict::Answered && d.hears(3) == Some(DATA_PACKET);
        let word = d.heard_at(3) + HEADER_LEN;
        let whole = load32(word) | load32(word + 4) << 32 == u64::from_le_bytes(*b"12345678");
        Verdict::answered_if(stands && said && whole)
    })
}

/// More than the host has room for, while the other end takes nothing.
pub fn credit_overflow() -> Verdict {
    to_oneself(|d, _| {
        let len = 0x1000;
        let more = Packet {
            len,
            ..packet(DATA_PACKET)
        };
        let ended = (0..400).any(|_| {
            let _ = d.sends(more, len);
            // Between, the host tells of its room.
            (2..d.used_count(RECEIVE)).any(|turn| d.hears(turn) == Some(RESET))
        });
        Verdict::answered_if(!ended)
    })
}

/// Far more connections than a guest may have; refused where the last one is.
pub fn flood() -> Verdict {
    bare_socket(|d| {
        let sent = (0..600).all(|port| {
            let request = Packet {
                ports: (port, LOOP),
                ..packet(REQUEST)
            };
            d.sends(request, 0) == Verdict::Answered
        });
        d.listens();
        let refused = (0..ROOMS).any(|turn| d.hears(turn) == Some(RESET));
        Verdict::answered_if(!refused).unless(!sent, "the device takes no more packets")
    })
}

/// A packet to nowhere, which gets its reset.
pub(super) fn unanswered() -> Verdict {
    strays(1)
}

/// Packets to nowhere, while there is no room for an answer; then there is.
pub fn strays(count: u64) -> Verdict {
    bare_socket(|d| {
        let stray = Packet {
            ports: (OURS, NOBODY),
            ..packet(DATA_PACKET)
        };
        let sent = (0..count).all(|_| d.sends(stray, 0) == Verdict::Answered);
        let answered = d.listens().hears(0) == Some(RESET);
        Verdict::answered_if(sent && answered)
    })
}

/// An answer is due, and these are the buffers for it.
pub fn answered_into(buffer: fn(Virtio) -> (u64, u64, u64)) -> Verdict {
    bare_socket(|d| {
        let stray = Packet {
            ports: (OURS, NOBODY),
            ..packet(REQUEST)
        };
        let _ = d.sends(stray, 0);
        d.chain(RECEIVE, &[buffer(d)])
            .unless_answered(d.used_len(RECEIVE) == 0 && d.used_count(RECEIVE) > 0)
    })
}

/// Connections and resets of the device in turn.
pub fn resets() -> Verdict {
    bare_socket(|d| {
        (0..30).for_each(|_| {
            let d = d.up().listens();
            let _ = d.sends(packet(REQUEST), 0);
            d.reset();
        });
        Verdict::answered_if(d.up().listens().sends(packet(REQUEST), 0) == Verdict::Answered)
    })
}
