//! DHCPv4 (RFC 2131, 2132, 3396, 3397, 3442, 6842): the address is always the same one, so that an answer follows from
//! the question alone.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::frame::{Link, Mac, Udp4, udp4};
use crate::lease::{Lease, Route, V4};
use crate::names;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
const FIXED: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const ASKS: u8 = 1;
const ANSWERS: u8 = 2;
const BROADCAST: u8 = 0x80;
/// Headers of IP and UDP, which the longest message of a client includes.
const HEADERS: u16 = 28;
/// What every client takes, and what one frame holds.
const SHORTEST_MOST: u16 = 576;
const LONGEST_MOST: u16 = 1500;
/// Bytes of one option; what is longer goes on in another one of the same number.
const OPTION: usize = 255;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const INFORM: u8 = 8;

mod code {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const HOSTNAME: u8 = 12;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const NTP: u8 = 42;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const SECONDS: u8 = 51;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const MOST: u8 = 57;
    pub(super) const CLIENT: u8 = 61;
    pub(super) const TFTP_SERVER: u8 = 66;
    pub(super) const BOOT_FILE: u8 = 67;
    pub(super) const SEARCH: u8 = 119;
    pub(super) const ROUTES: u8 = 121;
    pub(super) const END: u8 = 255;
}

/// A client's message.
struct Question<'a> {
    fixed: &'a [u8],
    options: &'a [u8],
}

impl<'a> Question<'a> {
    /// A message of the machine with this hardware address, not relayed.
    fn read(payload: &'a [u8], mac: Mac) -> Option<Self> {
        let (fixed, rest) = payload.split_at_checked(FIXED)?;
        let options = rest.strip_prefix(&COOKIE)?;
        let ours = fixed[..3] == [ASKS, 1, 6] && fixed[28..34] == mac.0;
        let relayed = fixed[24..28] != [0; 4];
        (ours && !relayed).then_some(Self { fixed, options })
    }

    /// The first option of a number.
    fn option(&self, wanted: u8) -> Option<&'a [u8]> {
        let mut rest = self.options;
        loop {
            match *rest {
                [code::END, ..] | [] | [_] => return None,
                [code::PAD, ..] => rest = &rest[1..],
                [number, length, ..] => {
                    let value = rest.get(2..2 + usize::from(length))?;
                    if number == wanted {
                        return Some(value);
                    }
                    rest = &rest[2 + value.len()..];
                }
            }
        }
    }

    fn address(&self, wanted: u8) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.option(wanted)?.try_into().ok()?;
        Some(bytes.into())
    }

    /// The address that the client already uses.
    fn own(&self) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.fixed[12..16].try_into().ok()?;
        Some(Ipv4Addr::from(bytes)).filter(|address| !address.is_unspecified())
    }

    /// How long the answer may be.
    fn most(&self) -> usize {
        let bytes = self.option(code::MOST).and_then(|bytes| bytes.try_into().ok());
        let most = bytes.map_or(SHORTEST_MOST, u16::from_be_bytes);
        usize::from(most.clamp(SHORTEST_MOST, LONGEST_MOST) - HEADERS)
    }
}

/// An answer on its way. Options that do not fit are left out, the least important of which come last.
struct Answer {
    message: Vec<u8>,
    most: usize,
}

impl Answer {
    fn to(question: &Question<'_>, kind: u8, address: Ipv4Addr) -> Self {
        let mut message = question.fixed.to_vec();
        message[0] = ANSWERS;
        // Hops and seconds; the transaction, the flags and the hardware address stay.
        message[3] = 0;
        message[8..10].fill(0);
        if kind == NAK {
            message[12..16].fill(0);
        }
        message[16..20].copy_from_slice(&address.octets());
        // Next server, server name and file.
        message[20..28].fill(0);
        message[44..].fill(0);
        message.extend_from_slice(&COOKIE);
        let mut answer = Self {
            message,
            most: question.most(),
        };
        answer.add(code::KIND, &[kind]);
        answer
    }

    fn add(&mut self, number: u8, value: &[u8]) {
        let parts = value.len().div_ceil(OPTION);
        // One byte is kept for the end.
        if self.message.len() + value.len() + 2 * parts + 1 > self.most {
            return;
        }
        for part in value.chunks(OPTION) {
            self.message.push(number);
            self.message
                .push(u8::try_from(part.len()).expect("chunks are at most OPTION bytes"));
            self.message.extend_from_slice(part);
        }
    }

    fn add_addresses(&mut self, number: u8, addresses: &[Ipv4Addr]) {
        let bytes: Vec<u8> = addresses.iter().flat_map(|address| address.octets()).collect();
        self.add(number, &bytes);
    }

    fn finish(mut self) -> Vec<u8> {
        self.message.push(code::END);
        self.message
    }
}

/// What a message of the guest is answered with.
pub(crate) fn answer(lease: &Lease, v4: &V4, udp: &Udp4<'_>) -> Option<Vec<u8>> {
    if udp.to.port() != SERVER_PORT || udp.from.port() != CLIENT_PORT {
        return None;
    }
    let question = Question::read(udp.payload, lease.mac)?;
    let kind = decide(&question, v4)?;
    let address = match (kind, question.option(code::KIND)) {
        (NAK, _) | (_, Some([INFORM])) => Ipv4Addr::UNSPECIFIED,
        _ => v4.address,
    };
    let mut answer = Answer::to(&question, kind, address);
    answer.add(code::SERVER, &v4.server.octets());
    if let Some(client) = question.option(code::CLIENT) {
        answer.add(code::CLIENT, client);
    }
    if kind != NAK {
        if !address.is_unspecified() {
            answer.add(code::SECONDS, &v4.seconds.to_be_bytes());
        }
        tell(&mut answer, lease, v4);
    }
    let (mac, to) = receiver(&question, kind, lease, v4);
    let link = Link {
        from: lease.server_mac,
        to: mac,
    };
    udp4(
        link,
        SocketAddrV4::new(v4.server, SERVER_PORT),
        SocketAddrV4::new(to, CLIENT_PORT),
        &answer.finish(),
    )
}

/// The kind of the answer. DECLINE and RELEASE get none: the address is this guest's whatever it says.
fn decide(question: &Question<'_>, v4: &V4) -> Option<u8> {
    match *question.option(code::KIND)? {
        [DISCOVER] => Some(OFFER),
        [INFORM] => question.own().map(|_| ACK),
        [REQUEST] => {
            let chosen = question.address(code::SERVER);
            if chosen.is_some_and(|server| server != v4.server) {
                return None;
            }
            let wanted = question.address(code::REQUESTED).or(question.own())?;
            Some(if wanted == v4.address { ACK } else { NAK })
        }
        _ => None,
    }
}

/// Where the answer goes: to a client that has no address yet, by its hardware address, unless it cannot take that.
fn receiver(question: &Question<'_>, kind: u8, lease: &Lease, v4: &V4) -> (Mac, Ipv4Addr) {
    let broadcast = question.fixed[10] & BROADCAST != 0;
    match question.own() {
        _ if kind == NAK => (Mac::BROADCAST, Ipv4Addr::BROADCAST),
        Some(own) => (lease.mac, own),
        None if broadcast => (Mac::BROADCAST, Ipv4Addr::BROADCAST),
        None => (lease.mac, v4.address),
    }
}

/// All that the guest is told besides its address, the most important things first.
fn tell(answer: &mut Answer, lease: &Lease, v4: &V4) {
    answer.add(code::MASK, &v4.mask().octets());
    answer.add_addresses(code::ROUTER, v4.router.as_slice());
    answer.add_addresses(code::DNS, &v4.dns);
    answer.add(code::MTU, &lease.mtu.to_be_bytes());
    answer.add(code::ROUTES, &routes(v4));
    if let Some(hostname) = &lease.hostname {
        answer.add(code::HOSTNAME, hostname.as_bytes());
    }
    if let Some(domain) = lease.search.first() {
        answer.add(code::DOMAIN, domain.as_bytes());
    }
    answer.add(code::SEARCH, &names::encode_all(&lease.search));
    answer.add_addresses(code::NTP, &v4.ntp);
    for (number, text) in [
        (code::TFTP_SERVER, &v4.tftp_server),
        (code::BOOT_FILE, &v4.boot_file),
    ] {
        if let Some(text) = text {
            answer.add(number, text.as_bytes());
        }
    }
    for (number, text) in &v4.private {
        answer.add(*number, text.as_bytes());
    }
}

/// Routes without classes. A client that is told any forgets the router option, so that the default one is among them.
fn routes(v4: &V4) -> Vec<u8> {
    if v4.routes.is_empty() {
        return Vec::new();
    }
    let default = v4.router.map(|by| Route {
        network: Ipv4Addr::UNSPECIFIED,
        prefix: 0,
        by,
    });
    let mut bytes = Vec::new();
    for route in v4.routes.iter().copied().chain(default) {
        let significant = usize::from(route.prefix.div_ceil(8)).min(4);
        bytes.push(route.prefix);
        bytes.extend_from_slice(&route.network.octets()[..significant]);
        bytes.extend_from_slice(&route.by.octets());
    }
    bytes
}
