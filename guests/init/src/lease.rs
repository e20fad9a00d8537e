//! DHCPv4 as a guest speaks it: its two questions as bytes, and what is to be known of an answer. Pure.

use std::net::Ipv4Addr;

/// What a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// How many bits of it are the network's.
    pub prefix: u8,
    /// The way out.
    pub router: Option<Ipv4Addr>,
    /// Who knows names.
    pub dns: Vec<Ipv4Addr>,
    /// Where short names are looked for.
    pub domain: Option<String>,
    /// Who gave it.
    pub server: Ipv4Addr,
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
    /// It is not.
    Denied,
}

/// Bytes before the options, with the cookie that says that they follow.
const FIXED: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// The most name servers that a `resolv.conf` is read for.
const MAX_SERVERS: usize = 3;

const MASK: u8 = 1;
const ROUTER: u8 = 3;
const DNS: u8 = 6;
const DOMAIN: u8 = 15;
const WISH: u8 = 50;
const SECONDS: u8 = 51;
const KIND: u8 = 53;
const SERVER: u8 = 54;
const WANTED: u8 = 55;
const PAD: u8 = 0;
const END: u8 = 255;

/// Asks for an address: for that of an offer, or for an offer. The answer is to come to everybody, as we have no address yet.
pub fn question(mac: [u8; 6], transaction: u32, offer: Option<&Lease>) -> Vec<u8> {
    let mut bytes = vec![0; FIXED];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&transaction.to_be_bytes());
    bytes[10] = 0x80;
    bytes[28..34].copy_from_slice(&mac);
    bytes[236..FIXED].copy_from_slice(&COOKIE);
    let kind = if offer.is_some() { 3 } else { 1 };
    bytes.extend([KIND, 1, kind, WANTED, 5, MASK, ROUTER, DNS, DOMAIN, SECONDS]);
    if let Some(offer) = offer {
        bytes.extend([WISH, 4]);
        bytes.extend(offer.address.octets());
        bytes.extend([SERVER, 4]);
        bytes.extend(offer.server.octets());
    }
    bytes.push(END);
    bytes
}

/// What an answer to our question says; nothing where it is another's, or not understood.
pub fn answer(bytes: &[u8], mac: [u8; 6], transaction: u32) -> Option<Answer> {
    let (fixed, options) = bytes.split_at_checked(FIXED)?;
    let ours = fixed[0] == 2 && fixed[4..8] == transaction.to_be_bytes() && fixed[28..34] == mac;
    if !ours || fixed[236..] != COOKIE {
        return None;
    }
    let address = Ipv4Addr::from(<[u8; 4]>::try_from(&fixed[16..20]).ok()?);
    let lease = || {
        let mask = addresses(option(options, MASK)?).next()?;
        Some(Lease {
            address,
            prefix: u8::try_from(u32::from(mask).leading_ones()).ok()?,
            router: option(options, ROUTER).and_then(|value| addresses(value).next()),
            dns: option(options, DNS)
                .map_or_else(Vec::new, |value| addresses(value).take(MAX_SERVERS).collect()),
            domain: option(options, DOMAIN).and_then(domain),
            server: addresses(option(options, SERVER)?).next()?,
            seconds: u32::from_be_bytes(option(options, SECONDS)?.try_into().ok()?),
        })
    };
    match option(options, KIND)? {
        [2] => lease().map(Answer::Offer),
        [5] => lease().map(Answer::Given),
        [6] => Some(Answer::Denied),
        _ => None,
    }
}

fn option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match options {
            [PAD, rest @ ..] => options = rest,
            [END, ..] | [] | [_] => return None,
            [kind, length, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                if *kind == wanted {
                    return Some(value);
                }
                options = rest;
            }
        }
    }
}

fn addresses(value: &[u8]) -> impl Iterator<Item = Ipv4Addr> {
    value.as_chunks::<4>().0.iter().copied().map(Ipv4Addr::from)
}

/// Only what a line of `resolv.conf` can hold.
fn domain(value: &[u8]) -> Option<String> {
    let text = str::from_utf8(value).ok()?.trim_end_matches('\0');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (!text.is_empty() && text.chars().all(plain)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn given() -> Vec<u8> {
        let mut bytes = question(MAC, 9, None);
        bytes.truncate(FIXED);
        bytes[0] = 2;
        bytes[16..20].copy_from_slice(&[10, 0, 2, 2]);
        bytes.extend([PAD, KIND, 1, 5, MASK, 4, 255, 255, 255, 0, SERVER, 4, 10, 0, 2, 1]);
        bytes.extend([
            ROUTER, 4, 10, 0, 2, 1, DNS, 8, 1, 1, 1, 1, 2, 2, 2, 2, SECONDS, 4, 0, 0, 14, 16,
        ]);
        bytes.extend([DOMAIN, 3]);
        bytes.extend(b"a.b");
        bytes.push(END);
        bytes
    }

    #[test]
    fn a_given_lease_is_read_whole() {
        let lease = Lease {
            address: Ipv4Addr::new(10, 0, 2, 2),
            prefix: 24,
            router: Some(Ipv4Addr::new(10, 0, 2, 1)),
            dns: vec![Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(2, 2, 2, 2)],
            domain: Some("a.b".to_owned()),
            server: Ipv4Addr::new(10, 0, 2, 1),
            seconds: 3600,
        };
        assert_eq!(answer(&given(), MAC, 9), Some(Answer::Given(lease)));
    }

    #[test]
    fn anothers_answer_and_one_cut_anywhere_are_nothing() {
        let whole = given();
        assert_eq!(answer(&whole, MAC, 8), None);
        assert_eq!(answer(&whole, [2, 0, 0, 0, 0, 8], 9), None);
        let last = whole.len() - 6;
        assert!((0..last).all(|length| answer(&whole[..length], MAC, 9).is_none()));
    }

    #[test]
    fn a_denial_is_heard_though_it_names_no_network() {
        let mut bytes = given();
        bytes.truncate(FIXED);
        bytes.extend([KIND, 1, 6, SERVER, 4, 10, 0, 2, 1, END]);
        assert_eq!(answer(&bytes, MAC, 9), Some(Answer::Denied));
    }

    #[test]
    fn a_domain_that_would_be_another_line_is_left_out() {
        assert_eq!(domain(b"a.b\nnameserver 6.6.6.6"), None);
    }
}
