//! DHCPv6 as a guest speaks it (RFC 8415): its two questions as bytes, and what is to be known of an answer. Pure.

use std::net::Ipv6Addr;

/// What a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub address: Ipv6Addr,
    /// Who knows names.
    pub dns: Vec<Ipv6Addr>,
    /// What identifies who gave it.
    pub server: Vec<u8>,
    /// For so many seconds; the most that there are, for ever.
    pub seconds: u32,
}

/// What an answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may be asked for.
    Offer(Lease),
    /// It is ours.
    Given(Lease),
}

/// The most name servers that a `resolv.conf` is read for.
const MAX_SERVERS: usize = 3;
/// What identifies a server, in bytes; the standard allows no more.
const LONGEST_SERVER: usize = 130;
/// Type and transaction.
const HEAD: usize = 4;
/// An association's number and two times.
const ASSOCIATION: usize = 12;
/// An address with its two times.
const ADDRESS: usize = 24;

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const REPLY: u8 = 7;

const OF_CLIENT: u16 = 1;
const OF_SERVER: u16 = 2;
const OF_ADDRESSES: u16 = 3;
const OF_ADDRESS: u16 = 5;
const OF_WISHES: u16 = 6;
const OF_RAPID: u16 = 14;
const OF_DNS: u16 = 23;

/// Asks for an address: of the server of an offer, or of anybody, who may give it at once.
pub fn question(mac: [u8; 6], transaction: [u8; 3], offer: Option<&Lease>) -> Vec<u8> {
    let [a, b, c] = transaction;
    let mut bytes = vec![if offer.is_some() { REQUEST } else { SOLICIT }, a, b, c];
    option(&mut bytes, OF_CLIENT, &client(mac));
    option(&mut bytes, OF_WISHES, &OF_DNS.to_be_bytes());
    match offer {
        None => option(&mut bytes, OF_RAPID, &[]),
        Some(offer) => option(&mut bytes, OF_SERVER, &offer.server),
    }
    // One association, for one address, whose times are the server's matter.
    let mut association = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    if let Some(offer) = offer {
        let wish = [offer.address.octets().as_slice(), &[0; 8]].concat();
        option(&mut association, OF_ADDRESS, &wish);
    }
    option(&mut bytes, OF_ADDRESSES, &association);
    bytes
}

/// What an answer to our question says; nothing where it is another's, gives nothing, or is not understood.
pub fn answer(bytes: &[u8], mac: [u8; 6], transaction: [u8; 3]) -> Option<Answer> {
    let (head, options) = bytes.split_at_checked(HEAD)?;
    if head[1..] != transaction || first(options, OF_CLIENT)? != client(mac) {
        return None;
    }
    let server = first(options, OF_SERVER).filter(|server| (1..=LONGEST_SERVER).contains(&server.len()))?;
    let association = first(options, OF_ADDRESSES)?.get(ASSOCIATION..)?;
    let address = first(association, OF_ADDRESS)?.get(..ADDRESS)?;
    let (address, times) = address.split_first_chunk::<16>()?;
    let (_, seconds) = times.split_last_chunk::<4>()?;
    let lease = Lease {
        address: Some(Ipv6Addr::from(*address)).filter(is_usable)?,
        dns: first(options, OF_DNS).map_or_else(Vec::new, servers),
        server: server.to_owned(),
        seconds: Some(u32::from_be_bytes(*seconds)).filter(|seconds| *seconds > 0)?,
    };
    match head[0] {
        ADVERTISE => Some(Answer::Offer(lease)),
        REPLY => Some(Answer::Given(lease)),
        _ => None,
    }
}

/// What identifies us: our hardware address.
fn client(mac: [u8; 6]) -> Vec<u8> {
    [&[0, 3, 0, 1], mac.as_slice()].concat()
}

fn is_usable(address: &Ipv6Addr) -> bool {
    let special = [
        Ipv6Addr::is_multicast,
        Ipv6Addr::is_unspecified,
        Ipv6Addr::is_loopback,
    ];
    !special.iter().any(|is_special| is_special(address)) && !address.is_unicast_link_local()
}

fn servers(value: &[u8]) -> Vec<Ipv6Addr> {
    let all = value.as_chunks::<16>().0.iter().copied().map(Ipv6Addr::from);
    all.take(MAX_SERVERS).collect()
}

fn first(mut options: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [a, b, c, d, rest @ ..] = options {
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*c, *d])))?;
        if u16::from_be_bytes([*a, *b]) == wanted {
            return Some(value);
        }
        options = rest;
    }
    None
}

fn option(bytes: &mut Vec<u8>, number: u16, value: &[u8]) {
    // What we say is short, and what a server says of itself was bounded.
    let length = u16::try_from(value.len()).unwrap_or(0);
    bytes.extend(number.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
    const OURS: [u8; 3] = [1, 2, 3];

    /// An answer of this kind, which gives one address.
    fn given(kind: u8, address: &str, seconds: u32) -> Vec<u8> {
        let mut bytes = vec![kind, 1, 2, 3];
        option(&mut bytes, OF_SERVER, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1]);
        option(&mut bytes, OF_CLIENT, &client(MAC));
        let address: Ipv6Addr = address.parse().unwrap();
        let seconds = seconds.to_be_bytes();
        let mut association = vec![0; ASSOCIATION];
        let address = [address.octets().as_slice(), &seconds, &seconds].concat();
        option(&mut association, OF_ADDRESS, &address);
        option(&mut bytes, OF_DNS, &[0xfd; 5 * 16]);
        option(&mut bytes, OF_ADDRESSES, &association);
        bytes
    }

    fn lease() -> Lease {
        Lease {
            address: "fd10:0:2::2".parse().unwrap(),
            dns: vec![[0xfd; 16].into(); MAX_SERVERS],
            server: vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 1],
            seconds: 3600,
        }
    }

    #[test]
    fn an_answer_is_read_whole_whether_it_offers_or_gives() {
        let offered = answer(&given(ADVERTISE, "fd10:0:2::2", 3600), MAC, OURS);
        assert_eq!(offered, Some(Answer::Offer(lease())));
        let given = answer(&given(REPLY, "fd10:0:2::2", 3600), MAC, OURS);
        assert_eq!(given, Some(Answer::Given(lease())));
    }

    #[test]
    fn anothers_answer_and_one_cut_anywhere_are_nothing() {
        let whole = given(REPLY, "fd10:0:2::2", 3600);
        assert_eq!(answer(&whole, MAC, [1, 2, 4]), None);
        assert_eq!(answer(&whole, [2, 0, 0, 0, 0, 8], OURS), None);
        assert!((0..whole.len()).all(|length| answer(&whole[..length], MAC, OURS).is_none()));
    }

    #[test]
    fn an_address_that_is_nobodys_or_has_no_time_left_is_nothing() {
        let nothing = |address, seconds| answer(&given(REPLY, address, seconds), MAC, OURS).is_none();
        assert!(
            ["::", "::1", "ff02::1", "fe80::7"]
                .into_iter()
                .all(|address| nothing(address, 60))
        );
        assert!(nothing("fd10:0:2::2", 0));
    }

    #[test]
    fn a_request_names_the_server_and_the_address_of_its_offer() {
        let asked = question(MAC, OURS, Some(&lease()));
        assert_eq!(asked[0], REQUEST);
        assert_eq!(first(&asked[HEAD..], OF_SERVER), Some(lease().server.as_slice()));
        let association = first(&asked[HEAD..], OF_ADDRESSES).unwrap();
        let address = first(&association[ASSOCIATION..], OF_ADDRESS).unwrap();
        assert_eq!(address[..16], lease().address.octets());
        assert_eq!(first(&question(MAC, OURS, None)[HEAD..], OF_SERVER), None);
    }
}
