//! The pods' addresses on a node: those of `--pod-network`, and IPv6's that follow from them.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::model::Addressing;

/// The host's routes.
const ROUTES: &str = "/proc/net/route";

/// A network of pods: as many addresses as a node may need, and as many as are looked through for a free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    network: u32,
    prefix: u8,
}

/// The text is no network of pods.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a network of pods, such as 10.244.0.0/24, with a prefix from 16 to 29")]
pub struct ParseRangeError(String);

/// The range is the host's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the pods' network {range} overlaps {route} of this host; choose another one with --pod-network")]
pub struct OverlapError {
    range: Range,
    route: String,
}

// === impl Range ===

impl Range {
    /// How many bits of an IPv6 address are the network's.
    pub const V6_PREFIX: u8 = 64;

    /// How many bits of an IPv4 address are the network's.
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// The node's own address there.
    pub fn router_v4(self) -> Ipv4Addr {
        self.v4(1)
    }

    /// The node's own address there.
    pub fn router_v6(self) -> Ipv6Addr {
        self.v6(1)
    }

    /// How many pods there can be: all but the network's address, the node's, and the last, which means everybody.
    pub const fn pods(self) -> u32 {
        self.size() - 3
    }

    /// The addresses of a pod, of [`Range::pods`].
    pub fn pod(self, index: u32) -> Addressing {
        let host = 2 + index % self.pods();
        Addressing {
            v4: self.v4(host),
            v4_prefix: self.prefix,
            v4_gateway: self.router_v4(),
            v6: self.v6(host),
            v6_prefix: Self::V6_PREFIX,
            v6_gateway: self.router_v6(),
        }
    }

    /// Looks whether a route of the host leads to some of it: then guests would not get there.
    ///
    /// # Errors
    /// [`OverlapError`].
    pub fn check_host(self) -> Result<(), OverlapError> {
        // A host without such a file has no routes that it could tell.
        self.check(&fs::read_to_string(ROUTES).unwrap_or_default())
    }

    fn check(self, routes: &str) -> Result<(), OverlapError> {
        // The first line names the columns.
        let overlapping = routes.lines().skip(1).find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |index: usize| {
                u32::from_str_radix(words.get(index)?, 16)
                    .ok()
                    .map(u32::swap_bytes)
            };
            let (to, mask) = (number(1)?, number(7)?);
            let common = mask & self.mask();
            (mask != 0 && to & common == self.network & common).then(|| {
                let (link, bits) = (words.first().unwrap_or(&""), mask.count_ones());
                format!("the route to {}/{bits} by {link}", Ipv4Addr::from(to))
            })
        });
        overlapping.map_or(Ok(()), |route| Err(OverlapError { range: self, route }))
    }

    const fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }

    const fn mask(self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }

    fn v4(self, host: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network + host)
    }

    /// In a unique local network that has the same numbers as IPv4's.
    fn v6(self, host: u32) -> Ipv6Addr {
        let prefix = 0xfd72_766d_u128 << 96 | u128::from(self.network) << 64;
        Ipv6Addr::from(prefix | u128::from(host))
    }
}

impl FromStr for Range {
    type Err = ParseRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let address: Ipv4Addr = address.parse().ok()?;
            let prefix = prefix.parse().ok().filter(|prefix| (16..=29).contains(prefix))?;
            let range = Self {
                network: address.into(),
                prefix,
            };
            (range.network & range.mask() == range.network && !address.is_loopback()).then_some(range)
        };
        parse().ok_or_else(|| ParseRangeError(text.to_owned()))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                          eth0 00000000 0100A8C0 0003 0 0 0 00000000 0 0 0\n\
                          eth0 0000F40A 00000000 0001 0 0 0 0000FFFF 0 0 0\n";

    #[test]
    fn the_first_and_the_last_pod_are_inside() {
        let range: Range = "10.244.0.0/24".parse().unwrap();
        assert_eq!(range.router_v4(), Ipv4Addr::new(10, 244, 0, 1));
        assert_eq!(range.pod(0).v4, Ipv4Addr::new(10, 244, 0, 2));
        assert_eq!(range.pod(range.pods() - 1).v4, Ipv4Addr::new(10, 244, 0, 254));
        assert_eq!(range.pod(range.pods()), range.pod(0));
        assert_eq!(range.pod(0).v6.to_string(), "fd72:766d:af4::2");
    }

    #[test]
    fn what_is_no_network_of_pods_is_refused() {
        for text in [
            "",
            "10.244.0.0",
            "10.244.0.1/24",
            "10.0.0.0/8",
            "10.0.0.0/30",
            "127.0.0.0/24",
            "a/24",
        ] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_that_the_host_has_a_route_to_is_refused_and_a_default_route_is_none() {
        let taken: Range = "10.244.3.0/24".parse().unwrap();
        let refused = taken.check(ROUTES).unwrap_err().to_string();
        assert!(
            refused.contains("the route to 10.244.0.0/16 by eth0"),
            "{refused}"
        );
        let free: Range = "10.245.0.0/16".parse().unwrap();
        assert_eq!(free.check(ROUTES), Ok(()));
    }
}
