//! Ethernet frames: what the guest sent, taken apart as far as it is for us, and what is sent back, put together.
//!
//! Everything in a guest's frame is a claim. A length is believed only where the bytes are there; what is fragmented,
//! has extension headers or is anything but UDP to a DHCP server or an ICMPv6 solicitation is not ours.

use std::net::{Ipv6Addr, SocketAddrV4, SocketAddrV6};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMP6: u8 = 58;
/// Neighbour discovery proves by this that no router carried it.
const HOPS_ON_LINK: u8 = 255;
const HOPS: u8 = 64;
/// The largest payload of a packet that we send: well below what an IP header can say.
const LONGEST_PAYLOAD: usize = 9000;

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Where an IPv6 multicast goes.
    pub fn multicast(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }
}

/// Who sends a frame to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The sender.
    pub from: Mac,
    /// The receiver.
    pub to: Mac,
}

/// A message in an IPv4 datagram.
#[derive(Debug)]
pub struct Udp4<'a> {
    /// The sender.
    pub from: SocketAddrV4,
    /// The receiver.
    pub to: SocketAddrV4,
    /// The message.
    pub payload: &'a [u8],
}

/// A message in an IPv6 datagram.
#[derive(Debug)]
pub struct Udp6<'a> {
    /// The sender.
    pub from: SocketAddrV6,
    /// The receiver.
    pub to: SocketAddrV6,
    /// The message.
    pub payload: &'a [u8],
}

/// An ICMPv6 message that no router carried.
#[derive(Debug)]
pub struct Icmp6<'a> {
    /// The sender.
    pub from: Ipv6Addr,
    /// The message, from its type on.
    pub payload: &'a [u8],
}

/// What of a guest's frames may concern us.
#[derive(Debug)]
pub enum Packet<'a> {
    /// IPv4, UDP.
    Udp4(Udp4<'a>),
    /// IPv6, UDP.
    Udp6(Udp6<'a>),
    /// IPv6, ICMP.
    Icmp6(Icmp6<'a>),
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Takes a frame apart.
pub fn parse(frame: &[u8]) -> Option<(Link, Packet<'_>)> {
    let link = Link {
        to: Mac(array(frame, 0)?),
        from: Mac(array(frame, 6)?),
    };
    let packet = frame.get(ETHERNET..)?;
    let packet = match u16_at(frame, 12)? {
        TYPE_IPV4 => parse_ipv4(packet)?,
        TYPE_IPV6 => parse_ipv6(packet)?,
        _ => return None,
    };
    Some((link, packet))
}

fn parse_ipv4(packet: &[u8]) -> Option<Packet<'_>> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    let fragmented = u16_at(packet, 6)? & 0x3fff != 0;
    if first >> 4 != 4 || header < IPV4 || fragmented || *packet.get(9)? != PROTOCOL_UDP {
        return None;
    }
    // A frame may be longer than its packet: Ethernet fills up to 60 bytes.
    let packet_end = usize::from(u16_at(packet, 2)?);
    let (from_port, to_port, payload) = parse_udp(packet.get(header..packet_end)?)?;
    Some(Packet::Udp4(Udp4 {
        from: SocketAddrV4::new(array::<4>(packet, 12)?.into(), from_port),
        to: SocketAddrV4::new(array::<4>(packet, 16)?.into(), to_port),
        payload,
    }))
}

fn parse_ipv6(packet: &[u8]) -> Option<Packet<'_>> {
    let length = usize::from(u16_at(packet, 4)?);
    let body = packet.get(IPV6..IPV6 + length)?;
    let from = Ipv6Addr::from(array::<16>(packet, 8)?);
    let to = Ipv6Addr::from(array::<16>(packet, 24)?);
    if packet.first()? >> 4 != 6 {
        return None;
    }
    match (*packet.get(6)?, *packet.get(7)?) {
        (PROTOCOL_UDP, _) => {
            let (from_port, to_port, payload) = parse_udp(body)?;
            Some(Packet::Udp6(Udp6 {
                from: SocketAddrV6::new(from, from_port, 0, 0),
                to: SocketAddrV6::new(to, to_port, 0, 0),
                payload,
            }))
        }
        (PROTOCOL_ICMP6, HOPS_ON_LINK) => Some(Packet::Icmp6(Icmp6 { from, payload: body })),
        _ => None,
    }
}

fn parse_udp(datagram: &[u8]) -> Option<(u16, u16, &[u8])> {
    let payload = datagram.get(UDP..usize::from(u16_at(datagram, 4)?))?;
    Some((u16_at(datagram, 0)?, u16_at(datagram, 2)?, payload))
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("payloads are at most LONGEST_PAYLOAD")
}

/// The Internet checksum over pieces, each of which but the last has an even length.
fn checksum(pieces: &[&[u8]]) -> u16 {
    let words = pieces.iter().flat_map(|piece| piece.chunks(2));
    let mut sum: u32 = words
        .map(|word| match *word {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            [high] => u32::from(high) << 8,
            _ => 0,
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("the loop has folded it")
}

fn ethernet(link: Link, kind: u16, room: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + room);
    frame.extend_from_slice(&link.to.0);
    frame.extend_from_slice(&link.from.0);
    frame.extend_from_slice(&kind.to_be_bytes());
    frame
}

/// A UDP datagram, with its checksum; 0 would say that there is none.
fn udp(pseudo: &[u8], from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(UDP + payload.len());
    for word in [from, to, length(UDP + payload.len()), 0] {
        datagram.extend_from_slice(&word.to_be_bytes());
    }
    datagram.extend_from_slice(payload);
    let sum = match checksum(&[pseudo, &datagram]) {
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..UDP].copy_from_slice(&sum.to_be_bytes());
    datagram
}

/// A frame with a UDP datagram over IPv4; nothing where it is longer than any frame.
pub fn udp4(link: Link, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > LONGEST_PAYLOAD {
        return None;
    }
    let (source, target) = (from.ip().octets(), to.ip().octets());
    let mut pseudo = [source, target].concat();
    pseudo.extend_from_slice(&[0, PROTOCOL_UDP]);
    pseudo.extend_from_slice(&length(UDP + payload.len()).to_be_bytes());
    let datagram = udp(&pseudo, from.port(), to.port(), payload);

    let mut header = vec![0x45, 0];
    header.extend_from_slice(&length(IPV4 + datagram.len()).to_be_bytes());
    header.extend_from_slice(&[0, 0, 0, 0, HOPS, PROTOCOL_UDP, 0, 0]);
    header.extend_from_slice(&source);
    header.extend_from_slice(&target);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());

    let mut frame = ethernet(link, TYPE_IPV4, IPV4 + datagram.len());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&datagram);
    Some(frame)
}

fn pseudo6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, bytes: usize) -> Vec<u8> {
    let mut pseudo = [from.octets(), to.octets()].concat();
    pseudo.extend_from_slice(&u32::from(length(bytes)).to_be_bytes());
    pseudo.extend_from_slice(&[0, 0, 0, protocol]);
    pseudo
}

fn ipv6(link: Link, from: Ipv6Addr, to: Ipv6Addr, (protocol, hops): (u8, u8), body: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(link, TYPE_IPV6, IPV6 + body.len());
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&length(body.len()).to_be_bytes());
    frame.extend_from_slice(&[protocol, hops]);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&to.octets());
    frame.extend_from_slice(body);
    frame
}

/// A frame with a UDP datagram over IPv6; nothing where it is longer than any frame.
pub fn udp6(link: Link, from: SocketAddrV6, to: SocketAddrV6, payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > LONGEST_PAYLOAD {
        return None;
    }
    let pseudo = pseudo6(*from.ip(), *to.ip(), PROTOCOL_UDP, UDP + payload.len());
    let datagram = udp(&pseudo, from.port(), to.port(), payload);
    Some(ipv6(link, *from.ip(), *to.ip(), (PROTOCOL_UDP, HOPS), &datagram))
}

/// A frame with an ICMPv6 message for the link, whose checksum (bytes 2 and 3) is filled in; nothing where it is
/// shorter than its header or longer than any frame.
pub fn icmp6(link: Link, from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> Option<Vec<u8>> {
    if message.len() > LONGEST_PAYLOAD {
        return None;
    }
    let mut message = message.to_vec();
    message.get_mut(2..4)?.fill(0);
    let pseudo = pseudo6(from, to, PROTOCOL_ICMP6, message.len());
    let sum = checksum(&[&pseudo, &message]);
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    Some(ipv6(link, from, to, (PROTOCOL_ICMP6, HOPS_ON_LINK), &message))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LINK: Link = Link {
        from: Mac([2; 6]),
        to: Mac([4; 6]),
    };

    fn here(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    #[test]
    fn what_is_put_together_comes_apart() {
        let frame = udp4(LINK, here(68), here(67), b"odd").unwrap();
        let (link, packet) = parse(&frame).unwrap();
        assert_eq!(link, LINK);
        assert!(
            matches!(packet, Packet::Udp4(udp) if udp.payload == b"odd" && udp.from == here(68) && udp.to == here(67))
        );
        let six = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 546, 0, 0);
        let frame = udp6(LINK, six, six, b"six").unwrap();
        assert!(
            matches!(parse(&frame), Some((_, Packet::Udp6(udp))) if udp.payload == b"six" && udp.to == six)
        );
        let frame = icmp6(LINK, Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, &[133, 0, 0, 0]).unwrap();
        assert!(matches!(parse(&frame), Some((_, Packet::Icmp6(icmp))) if icmp.payload[0] == 133));
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 1071's own example.
        assert_eq!(
            checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]),
            !0xddf2
        );
        let frame = udp4(LINK, here(68), here(67), b"odd").unwrap();
        assert_eq!(checksum(&[&frame[ETHERNET..ETHERNET + IPV4]]), 0);
    }

    #[test]
    fn every_cut_of_a_frame_is_nothing() {
        let frame = udp4(LINK, here(68), here(67), b"payload").unwrap();
        assert!((0..frame.len()).all(|end| parse(&frame[..end]).is_none()));
    }

    #[test]
    fn fragments_and_extensions_are_not_ours() {
        let mut frame = udp4(LINK, here(68), here(67), b"payload").unwrap();
        frame[ETHERNET + 7] = 1;
        assert!(parse(&frame).is_none());
        let mut frame = icmp6(LINK, Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST, &[133, 0, 0, 0]).unwrap();
        frame[ETHERNET + 7] = 64;
        assert!(parse(&frame).is_none(), "a router has carried it");
        frame[ETHERNET + 6] = 0;
        assert!(parse(&frame).is_none(), "hop-by-hop options");
    }
}
