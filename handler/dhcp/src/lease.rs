//! What one guest is told, and the bounds within which the protocols can say it.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::frame::Mac;
use crate::names;

/// More name servers than this no resolver asks.
const MOST_SERVERS: usize = 8;
/// Routes besides the default one.
const MOST_ROUTES: usize = 16;
/// Bytes of a search list as it is sent; with everything else it has to fit a frame.
const LONGEST_SEARCH: usize = 512;
/// Bytes of a name or value in a DHCPv4 option.
const LONGEST_TEXT: usize = 255;
/// The options that KubeVirt lets a manifest fill in freely.
const PRIVATE: std::ops::RangeInclusive<u8> = 224..=254;
/// What every IPv4 link carries, and every IPv6 one.
const SMALLEST_MTU: (u16, u16) = (576, 1280);

/// Why a lease cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// A prefix longer than an address.
    #[error("a prefix of {0} bits is longer than the address")]
    Prefix(u8),
    /// An MTU below what the protocol needs.
    #[error("an MTU of {0} is too small")]
    Mtu(u16),
    /// Too many of something.
    #[error("more than {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// Something that is no DNS name.
    #[error("'{0}' is not a DNS name")]
    Name(String),
    /// Something that does not fit its option.
    #[error("{0} is longer than DHCP can say")]
    TooLong(&'static str),
    /// An option that is not among the private ones.
    #[error("option {0} is not a private DHCP option (224 to 254)")]
    NotPrivate(u8),
    /// A router that is not on the link.
    #[error("{0} is not a link-local address")]
    NotLinkLocal(Ipv6Addr),
}

/// All that one guest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The guest's hardware address; nobody else is answered.
    pub mac: Mac,
    /// The hardware address that answers come from.
    pub server_mac: Mac,
    /// The link's MTU.
    pub mtu: u16,
    /// The guest's host name, without domain.
    pub hostname: Option<String>,
    /// Domains in which short names are looked up; the first one is the guest's own.
    pub search: Vec<String>,
    /// IPv4, where there is.
    pub v4: Option<V4>,
    /// IPv6, where there is.
    pub v6: Option<V6>,
}

/// The IPv4 half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V4 {
    /// Who answers.
    pub server: Ipv4Addr,
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Bits of its network.
    pub prefix: u8,
    /// Its default route.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Further routes.
    pub routes: Vec<Route>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// Name of a TFTP server.
    pub tftp_server: Option<String>,
    /// Name of a file to boot.
    pub boot_file: Option<String>,
    /// Private options, by number.
    pub private: Vec<(u8, String)>,
    /// How long the lease stands; `u32::MAX` is for ever.
    pub seconds: u32,
}

/// A route that a guest is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub network: Ipv4Addr,
    /// Bits of it.
    pub prefix: u8,
    /// By whom; 0.0.0.0 where the network is on the link.
    pub by: Ipv4Addr,
}

/// The IPv6 half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V6 {
    /// The link-local address that answers come from, and so the router of the guest.
    pub server: Ipv6Addr,
    /// Whether there is a way out by that router.
    pub routed: bool,
    /// The guest's address.
    pub address: Ipv6Addr,
    /// Bits of the network on the link.
    pub prefix: u8,
    /// Name servers.
    pub dns: Vec<Ipv6Addr>,
    /// How long the lease stands; `u32::MAX` is for ever.
    pub seconds: u32,
}

impl Lease {
    /// A lease without any address yet.
    pub fn new(mac: Mac, server_mac: Mac, mtu: u16) -> Self {
        Self {
            mac,
            server_mac,
            mtu,
            hostname: None,
            search: Vec::new(),
            v4: None,
            v6: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), LeaseError> {
        let (smallest4, smallest6) = SMALLEST_MTU;
        let smallest = if self.v6.is_some() { smallest6 } else { smallest4 };
        if self.mtu < smallest {
            return Err(LeaseError::Mtu(self.mtu));
        }
        for name in self.hostname.iter().chain(&self.search) {
            names::encode(name).ok_or_else(|| LeaseError::Name(name.clone()))?;
        }
        if names::encode_all(&self.search).len() > LONGEST_SEARCH {
            return Err(LeaseError::TooLong("the search list"));
        }
        self.v4.as_ref().map_or(Ok(()), V4::check)?;
        self.v6.as_ref().map_or(Ok(()), V6::check)
    }
}

impl V4 {
    /// Address and network; the server is the default route, and the lease stands for ever.
    pub fn new(server: Ipv4Addr, address: Ipv4Addr, prefix: u8) -> Self {
        Self {
            server,
            address,
            prefix,
            router: Some(server),
            dns: Vec::new(),
            routes: Vec::new(),
            ntp: Vec::new(),
            tftp_server: None,
            boot_file: None,
            private: Vec::new(),
            seconds: u32::MAX,
        }
    }

    /// The network's mask.
    pub(crate) fn mask(&self) -> Ipv4Addr {
        let bits = u32::from(self.prefix).min(32);
        Ipv4Addr::from(u32::MAX.checked_shl(32 - bits).unwrap_or(0))
    }

    fn check(&self) -> Result<(), LeaseError> {
        let prefixes = self.routes.iter().map(|route| route.prefix).chain([self.prefix]);
        if let Some(long) = prefixes.into_iter().find(|prefix| *prefix > 32) {
            return Err(LeaseError::Prefix(long));
        }
        at_most("name servers", self.dns.len(), MOST_SERVERS)?;
        at_most("time servers", self.ntp.len(), MOST_SERVERS)?;
        at_most("routes", self.routes.len(), MOST_ROUTES)?;
        let texts = self.private.iter().map(|(_, text)| text);
        let texts = texts.chain(&self.tftp_server).chain(&self.boot_file);
        if texts.into_iter().any(|text| text.len() > LONGEST_TEXT) {
            return Err(LeaseError::TooLong("an option"));
        }
        match self.private.iter().find(|(code, _)| !PRIVATE.contains(code)) {
            Some((code, _)) => Err(LeaseError::NotPrivate(*code)),
            None => Ok(()),
        }
    }
}

impl V6 {
    /// Address and network; the server is the default route, and the lease stands for ever.
    pub fn new(server: Ipv6Addr, address: Ipv6Addr, prefix: u8) -> Self {
        Self {
            server,
            routed: true,
            address,
            prefix,
            dns: Vec::new(),
            seconds: u32::MAX,
        }
    }

    fn check(&self) -> Result<(), LeaseError> {
        if self.prefix > 128 {
            return Err(LeaseError::Prefix(self.prefix));
        }
        if !self.server.is_unicast_link_local() {
            return Err(LeaseError::NotLinkLocal(self.server));
        }
        at_most("name servers", self.dns.len(), MOST_SERVERS)
    }
}

fn at_most(what: &'static str, count: usize, most: usize) -> Result<(), LeaseError> {
    match count > most {
        true => Err(LeaseError::TooMany { what, most }),
        false => Ok(()),
    }
}

/// The link-local address that a kernel gives an interface of this hardware address (EUI-64).
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        pair(a ^ 2, b),
        pair(c, 0xff),
        pair(0xfe, d),
        pair(e, f),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        let v4 = V4::new(Ipv4Addr::new(10, 0, 2, 1), Ipv4Addr::new(10, 0, 2, 2), 24);
        let v6 = V6::new(
            link_local(Mac([2, 0, 0, 0, 0, 1])),
            "fd10:0:2::2".parse().unwrap(),
            120,
        );
        Lease {
            v4: Some(v4),
            v6: Some(v6),
            ..Lease::new(Mac([2; 6]), Mac([4; 6]), 1500)
        }
    }

    #[test]
    fn what_the_protocols_cannot_say_is_refused() {
        assert_eq!(lease().check(), Ok(()));
        let mtu = Lease { mtu: 1000, ..lease() };
        assert_eq!(mtu.check(), Err(LeaseError::Mtu(1000)));
        let name = Lease {
            hostname: Some("a..b".to_owned()),
            ..lease()
        };
        assert_eq!(name.check(), Err(LeaseError::Name("a..b".to_owned())));
        let long = format!("{}.example", "a".repeat(60));
        let search = Lease {
            search: vec![long; 8],
            ..lease()
        };
        assert_eq!(search.check(), Err(LeaseError::TooLong("the search list")));
    }

    #[test]
    fn halves_are_checked_too() {
        let mut wrong = lease();
        wrong.v4.as_mut().unwrap().prefix = 33;
        assert_eq!(wrong.check(), Err(LeaseError::Prefix(33)));
        let mut wrong = lease();
        wrong.v4.as_mut().unwrap().private = vec![(53, "1".to_owned())];
        assert_eq!(wrong.check(), Err(LeaseError::NotPrivate(53)));
        let mut wrong = lease();
        wrong.v6.as_mut().unwrap().server = Ipv6Addr::LOCALHOST;
        assert_eq!(wrong.check(), Err(LeaseError::NotLinkLocal(Ipv6Addr::LOCALHOST)));
        let mut wrong = lease();
        wrong.v6.as_mut().unwrap().dns = vec![Ipv6Addr::LOCALHOST; 9];
        assert!(matches!(wrong.check(), Err(LeaseError::TooMany { most: 8, .. })));
    }

    #[test]
    fn link_local_addresses_are_the_kernels() {
        let mac = Mac([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);
        assert_eq!(link_local(mac).to_string(), "fe80::5054:ff:fe12:3456");
    }

    #[test]
    fn masks_follow_prefixes() {
        let mask = |prefix| V4::new(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, prefix).mask();
        assert_eq!(mask(0), Ipv4Addr::UNSPECIFIED);
        assert_eq!(mask(24), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(mask(32), Ipv4Addr::BROADCAST);
    }
}
