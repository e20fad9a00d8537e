//! Router advertisements (RFC 4861, 8106): there is a router, and addresses come by DHCPv6.
//!
//! The prefix is on the link but not for addresses that guests make themselves: the network knows no other address of
//! the guest than the lease's. The router's hardware address is not told; it answers neighbour solicitations itself.

use std::net::Ipv6Addr;

use crate::frame::{Icmp6, Link, Mac, icmp6};
use crate::lease::{Lease, V6};
use crate::names;

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
const HOPS: u8 = 64;
/// Addresses (M) and everything else (O) come by DHCPv6.
const MANAGED_OTHER: u8 = 0xc0;
/// Seconds for which the router and its words stand, the longest that can be said (RFC 8319): a guest that was
/// paused for hours has its way out at once.
const LIFETIME: u16 = u16::MAX;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const DNS: u8 = 25;
const SEARCH: u8 = 31;
const ON_LINK: u8 = 0x80;
/// Options are counted in this many bytes.
const UNIT: usize = 8;
/// Type, code, checksum and reserved words of a solicitation.
const SHORTEST_SOLICITATION: usize = 8;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The answer to a solicitation: to whom asked, or to all where they have no address yet.
pub(crate) fn answer(lease: &Lease, v6: &V6, icmp: &Icmp6<'_>) -> Option<Vec<u8>> {
    let solicited =
        icmp.payload.len() >= SHORTEST_SOLICITATION && icmp.payload.starts_with(&[SOLICITATION, 0]);
    match solicited {
        false => None,
        true if icmp.from.is_unicast_link_local() => Some(advertisement(lease, v6, lease.mac, icmp.from)),
        true => Some(to_all(lease, v6)),
    }
}

/// An advertisement to everybody on the link.
pub(crate) fn to_all(lease: &Lease, v6: &V6) -> Vec<u8> {
    advertisement(lease, v6, Mac::multicast(ALL_NODES), ALL_NODES)
}

fn advertisement(lease: &Lease, v6: &V6, mac: Mac, to: Ipv6Addr) -> Vec<u8> {
    let router = if v6.routed { LIFETIME } else { 0 };
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, HOPS, MANAGED_OTHER];
    message.extend_from_slice(&router.to_be_bytes());
    // How long neighbours are believed, and asked again: as the guest likes.
    message.extend_from_slice(&[0; 8]);
    option(&mut message, MTU, &[&[0; 2], &u32::from(lease.mtu).to_be_bytes()]);
    let seconds = v6.seconds.to_be_bytes();
    let network = network(v6).octets();
    option(
        &mut message,
        PREFIX,
        &[&[v6.prefix, ON_LINK], &seconds, &seconds, &[0; 4], &network],
    );
    let lifetime = u32::from(LIFETIME).to_be_bytes();
    if !v6.dns.is_empty() {
        let servers: Vec<u8> = v6.dns.iter().flat_map(Ipv6Addr::octets).collect();
        option(&mut message, DNS, &[&[0; 2], &lifetime, &servers]);
    }
    if !lease.search.is_empty() {
        let search = names::encode_all(&lease.search);
        option(&mut message, SEARCH, &[&[0; 2], &lifetime, &search]);
    }
    let link = Link {
        from: lease.server_mac,
        to: mac,
    };
    icmp6(link, v6.server, to, &message).expect("what a lease may say fits a frame")
}

fn network(v6: &V6) -> Ipv6Addr {
    let host = 128 - u32::from(v6.prefix).min(128);
    let mask = u128::MAX.checked_shl(host).unwrap_or(0);
    Ipv6Addr::from(u128::from(v6.address) & mask)
}

/// Type, length in units, and what is said, filled up with zeroes.
fn option(message: &mut Vec<u8>, kind: u8, pieces: &[&[u8]]) {
    let body = pieces.concat();
    let units = (2 + body.len()).div_ceil(UNIT);
    message.extend_from_slice(&[
        kind,
        u8::try_from(units).expect("a checked lease has at most 512 bytes of names"),
    ]);
    message.extend_from_slice(&body);
    message.resize(message.len() + units * UNIT - 2 - body.len(), 0);
}
