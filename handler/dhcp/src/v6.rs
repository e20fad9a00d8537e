//! DHCPv6 (RFC 8415): the address is always the same one, so that an answer follows from the question alone.

use std::net::{Ipv6Addr, SocketAddrV6};

use crate::frame::{Link, Udp6, udp6};
use crate::lease::{Lease, V6};
use crate::names;

const SERVER_PORT: u16 = 547;
const CLIENT_PORT: u16 = 546;
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// What identifies a client, in bytes; the standard allows no more.
const LONGEST_CLIENT_ID: usize = 130;
/// How many associations of one message are answered; a client has one for each interface, and this guest one.
const MOST_ASSOCIATIONS: usize = 4;
/// Type and transaction.
const HEAD: usize = 4;

/// Kinds of messages.
mod kind {
    pub(super) const SOLICIT: u8 = 1;
    pub(super) const ADVERTISE: u8 = 2;
    pub(super) const REQUEST: u8 = 3;
    pub(super) const CONFIRM: u8 = 4;
    pub(super) const RENEW: u8 = 5;
    pub(super) const REBIND: u8 = 6;
    pub(super) const REPLY: u8 = 7;
    pub(super) const RELEASE: u8 = 8;
    pub(super) const DECLINE: u8 = 9;
    pub(super) const INFORMATION: u8 = 11;
}

mod code {
    pub(super) const CLIENT: u16 = 1;
    pub(super) const SERVER: u16 = 2;
    pub(super) const ADDRESSES: u16 = 3;
    pub(super) const ADDRESS: u16 = 5;
    pub(super) const STATUS: u16 = 13;
    pub(super) const RAPID: u16 = 14;
    pub(super) const DNS: u16 = 23;
    pub(super) const SEARCH: u16 = 24;
    pub(super) const PREFIXES: u16 = 25;
}

mod status {
    pub(super) const SUCCESS: u16 = 0;
    pub(super) const NO_ADDRESS: u16 = 2;
    pub(super) const NOT_ON_LINK: u16 = 4;
    pub(super) const NO_PREFIX: u16 = 6;
}

/// The options in some bytes, up to where they are whole.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [a, b, c, d, rest @ ..] = self.0 else {
            return None;
        };
        let value = rest.get(..usize::from(u16::from_be_bytes([*c, *d])))?;
        self.0 = &rest[value.len()..];
        Some((u16::from_be_bytes([*a, *b]), value))
    }
}

fn first(options: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut found = Options(options).filter(|(number, _)| *number == wanted);
    found.next().map(|(_, value)| value)
}

/// A client's association for addresses or prefixes: its number, and the options in it.
#[derive(Clone, Copy)]
struct Association<'a> {
    number: u16,
    id: [u8; 4],
    options: &'a [u8],
}

fn associations(options: &[u8]) -> impl Iterator<Item = Association<'_>> {
    let all = Options(options).filter(|(number, _)| matches!(*number, code::ADDRESSES | code::PREFIXES));
    all.take(MOST_ASSOCIATIONS).filter_map(|(number, value)| {
        Some(Association {
            number,
            id: value.get(..4)?.try_into().ok()?,
            // The two times in between are a client's wishes.
            options: value.get(12..)?,
        })
    })
}

/// The addresses that a client names in an association.
fn addresses(association: Association<'_>) -> impl Iterator<Item = Ipv6Addr> {
    Options(association.options)
        .filter(|(number, _)| *number == code::ADDRESS)
        .filter_map(|(_, value)| Some(<[u8; 16]>::try_from(value.get(..16)?).ok()?.into()))
}

fn option(message: &mut Vec<u8>, number: u16, value: &[u8]) {
    message.extend_from_slice(&number.to_be_bytes());
    message.extend_from_slice(
        &u16::try_from(value.len())
            .expect("values are bounded by a frame")
            .to_be_bytes(),
    );
    message.extend_from_slice(value);
}

/// What identifies this server: its hardware address (DUID-LL).
fn server_id(lease: &Lease) -> Vec<u8> {
    [&[0, 3, 0, 1], lease.server_mac.0.as_slice()].concat()
}

/// What a message of the guest is answered with.
pub(crate) fn answer(lease: &Lease, v6: &V6, udp: &Udp6<'_>) -> Option<Vec<u8>> {
    let asks_us = udp.to.port() == SERVER_PORT && *udp.to.ip() == SERVERS;
    if !asks_us || !udp.from.ip().is_unicast_link_local() {
        return None;
    }
    let (head, options) = udp.payload.split_at_checked(HEAD)?;
    let asked = head[0];
    let rapid = first(options, code::RAPID).is_some();
    let answered = decide(asked, options, lease, rapid)?;

    let mut message = vec![answered, head[1], head[2], head[3]];
    option(&mut message, code::SERVER, &server_id(lease));
    if let Some(client) = first(options, code::CLIENT) {
        option(&mut message, code::CLIENT, client);
    }
    if asked == kind::SOLICIT && rapid {
        option(&mut message, code::RAPID, &[]);
    }
    match asked {
        kind::CONFIRM => confirm(&mut message, v6, options)?,
        kind::RELEASE | kind::DECLINE => option(&mut message, code::STATUS, &status::SUCCESS.to_be_bytes()),
        kind::INFORMATION => tell(&mut message, lease, v6),
        _ => {
            give(&mut message, v6, options);
            tell(&mut message, lease, v6);
        }
    }
    let from = SocketAddrV6::new(v6.server, SERVER_PORT, 0, 0);
    let to = SocketAddrV6::new(*udp.from.ip(), CLIENT_PORT, 0, 0);
    let link = Link {
        from: lease.server_mac,
        to: lease.mac,
    };
    udp6(link, from, to, &message)
}

/// The kind of the answer, where the message is one that a server takes (RFC 8415, 16).
fn decide(asked: u8, options: &[u8], lease: &Lease, rapid: bool) -> Option<u8> {
    let client = first(options, code::CLIENT);
    if client.is_some_and(|id| id.is_empty() || id.len() > LONGEST_CLIENT_ID) {
        return None;
    }
    let server = first(options, code::SERVER);
    let ours = server.is_some_and(|id| id == server_id(lease));
    let named = client.is_some();
    match asked {
        kind::SOLICIT if named && server.is_none() => Some(if rapid { kind::REPLY } else { kind::ADVERTISE }),
        kind::CONFIRM | kind::REBIND if named && server.is_none() => Some(kind::REPLY),
        kind::REQUEST | kind::RENEW | kind::RELEASE | kind::DECLINE if named && ours => Some(kind::REPLY),
        kind::INFORMATION if server.is_none() || ours => Some(kind::REPLY),
        _ => None,
    }
}

/// Whether what the client has fits this link; no answer to one that names no address.
fn confirm(message: &mut Vec<u8>, v6: &V6, options: &[u8]) -> Option<()> {
    let mut named = associations(options)
        .filter(|association| association.number == code::ADDRESSES)
        .flat_map(addresses)
        .peekable();
    named.peek()?;
    let fits = named.all(|address| address == v6.address);
    let code = if fits {
        status::SUCCESS
    } else {
        status::NOT_ON_LINK
    };
    option(message, code::STATUS, &code.to_be_bytes());
    Some(())
}

/// The address, to the first association that wants one, and what that held until now, with no time left.
fn give(message: &mut Vec<u8>, v6: &V6, options: &[u8]) {
    let mut given = false;
    for association in associations(options) {
        let (number, mut body) = (association.number, association.id.to_vec());
        // When to ask again is left to the client.
        body.extend_from_slice(&[0; 8]);
        if number == code::PREFIXES {
            option(&mut body, code::STATUS, &status::NO_PREFIX.to_be_bytes());
        } else if given {
            option(&mut body, code::STATUS, &status::NO_ADDRESS.to_be_bytes());
        } else {
            given = true;
            option(&mut body, code::ADDRESS, &address(v6.address, v6.seconds));
            if let Some(foreign) = addresses(association).find(|named| *named != v6.address) {
                option(&mut body, code::ADDRESS, &address(foreign, 0));
            }
        }
        option(message, number, &body);
    }
}

fn address(address: Ipv6Addr, seconds: u32) -> Vec<u8> {
    let seconds = seconds.to_be_bytes();
    [address.octets().as_slice(), &seconds, &seconds].concat()
}

fn tell(message: &mut Vec<u8>, lease: &Lease, v6: &V6) {
    if !v6.dns.is_empty() {
        let servers: Vec<u8> = v6.dns.iter().flat_map(Ipv6Addr::octets).collect();
        option(message, code::DNS, &servers);
    }
    if !lease.search.is_empty() {
        option(message, code::SEARCH, &names::encode_all(&lease.search));
    }
}
