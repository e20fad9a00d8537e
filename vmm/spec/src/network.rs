//! Network interfaces of a machine.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::SpecError;
use crate::limits::{MAX_MTU, MAX_NET_QUEUES, MAX_SOCKET_PATH, MAX_TAP_NAME, MIN_MTU};

/// A network interface of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Net {
    /// Where its frames go.
    pub network: Network,
    /// The guest's address; made from the machine's identity where none is given.
    pub mac: MacAddress,
    /// Pairs of queues, 1 to [`MAX_NET_QUEUES`]: a guest with several vCPUs may use one for each.
    pub queues: u8,
    /// The largest packet, if the guest is to be told.
    pub mtu: Option<u16>,
    /// Whether the host's kernel moves the frames (vhost-net).
    pub vhost: bool,
}

/// What an interface is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// A tap of the host, which must exist when the machine starts.
    Tap(TapName),
    /// A passt that listens at this Unix socket.
    Passt(PathBuf),
}

/// An interface as it is wished for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetWish {
    /// Where its frames go.
    pub network: Network,
    /// The guest's address, if it matters.
    pub mac: Option<MacAddress>,
    /// Pairs of queues.
    pub queues: u8,
    /// The largest packet, if the guest is to be told.
    pub mtu: Option<u16>,
    /// Whether the host's kernel is to move the frames (vhost-net); for a tap with one pair of queues.
    pub vhost: bool,
}

/// The name of a tap interface: 1 to 15 bytes, no `/`, no white space, as Linux demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapName(String);

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacAddress([u8; 6]);

/// The text is not a network name or address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseNetError {
    /// Linux would not take it as an interface's name.
    #[error("'{0}' is not an interface name: 1 to {MAX_TAP_NAME} characters, without '/', ':' or spaces")]
    Tap(String),
    /// Not six hexadecimal bytes, or a group address.
    #[error("'{0}' is not a unicast MAC address such as 52:54:00:12:34:56")]
    Mac(String),
}

// === impl NetWish ===

impl NetWish {
    /// One pair of queues, an address of our choice.
    pub fn new(network: Network) -> Self {
        Self {
            network,
            mac: None,
            queues: 1,
            mtu: None,
            vhost: false,
        }
    }

    pub(crate) fn check(&self) -> Result<(), SpecError> {
        if !(1..=MAX_NET_QUEUES).contains(&self.queues) {
            return Err(SpecError::NetQueues(self.queues));
        }
        if self.vhost && (self.queues > 1 || !matches!(self.network, Network::Tap(_))) {
            return Err(SpecError::Vhost);
        }
        match (&self.network, self.mtu) {
            (Network::Passt(_), _) if self.queues > 1 => Err(SpecError::PasstQueues),
            (Network::Passt(path), _) if !(1..=MAX_SOCKET_PATH).contains(&path.as_os_str().len()) => {
                Err(SpecError::PasstPath(path.clone()))
            }
            (_, Some(mtu)) if !(MIN_MTU..=MAX_MTU).contains(&mtu) => Err(SpecError::Mtu(mtu)),
            _ => Ok(()),
        }
    }

    pub(crate) fn met(self, identity: &str, index: usize) -> Net {
        Net {
            network: self.network,
            mac: self.mac.unwrap_or_else(|| MacAddress::stable(identity, index)),
            queues: self.queues,
            mtu: self.mtu,
            vhost: self.vhost,
        }
    }
}

// === impl TapName ===

impl TapName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TapName {
    type Err = ParseNetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':' | ',' | '%');
        if text.is_empty()
            || text.len() > MAX_TAP_NAME
            || text == "."
            || text == ".."
            || !text.chars().all(allowed)
        {
            return Err(ParseNetError::Tap(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

// === impl MacAddress ===

impl MacAddress {
    /// The six bytes.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// A locally administered address that stays the same for the same identity and interface.
    pub fn stable(identity: &str, index: usize) -> Self {
        // FNV-1a: no secret, only spread.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in identity.bytes().chain(index.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let [a, b, c, d, e, ..] = hash.to_be_bytes();
        Self([0x02, a, b, c, d, e])
    }
}

impl FromStr for MacAddress {
    type Err = ParseNetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let err = || ParseNetError::Mac(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(err)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| err())?;
        }
        let rest = parts.next();
        Self::try_from(octets)
            .ok()
            .filter(|_| rest.is_none())
            .ok_or_else(err)
    }
}

impl TryFrom<[u8; 6]> for MacAddress {
    type Error = ParseNetError;

    /// Of a link, which no group is, and which has one.
    fn try_from(octets: [u8; 6]) -> Result<Self, Self::Error> {
        let is_group = octets[0] & 1 == 1;
        if is_group || octets == [0; 6] {
            return Err(ParseNetError::Mac(Self(octets).to_string()));
        }
        Ok(Self(octets))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_round_trips_through_text() {
        let mac: MacAddress = "52:54:00:ab:cd:ef".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
    }

    #[test]
    fn group_short_and_long_macs_are_refused() {
        for text in [
            "",
            "01:00:5e:00:00:01",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:ef:00",
            "00:00:00:00:00:00",
            "5:54:00:ab:cd:ef",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn interfaces_that_cannot_be_are_refused() {
        let tap = NetWish::new(Network::Tap("t0".parse().unwrap()));
        let passt = NetWish::new(Network::Passt("/p".into()));
        assert_eq!((tap.check(), passt.check()), (Ok(()), Ok(())));
        for queues in [0, MAX_NET_QUEUES + 1] {
            let wish = NetWish {
                queues,
                ..tap.clone()
            };
            assert_eq!(wish.check(), Err(SpecError::NetQueues(queues)));
        }
        let wish = NetWish { queues: 2, ..passt };
        assert_eq!(wish.check(), Err(SpecError::PasstQueues));
        for mtu in [0, MIN_MTU - 1, MAX_MTU + 1] {
            let wish = NetWish {
                mtu: Some(mtu),
                ..tap.clone()
            };
            assert_eq!(wish.check(), Err(SpecError::Mtu(mtu)));
        }
        for wish in [
            NetWish {
                queues: 2,
                ..tap.clone()
            },
            NetWish::new(Network::Passt("/p".into())),
        ] {
            let wish = NetWish { vhost: true, ..wish };
            assert_eq!(wish.check(), Err(SpecError::Vhost));
        }
        let long = NetWish::new(Network::Passt("x".repeat(MAX_SOCKET_PATH + 1).into()));
        assert!(matches!(long.check(), Err(SpecError::PasstPath(_))));
    }

    #[test]
    fn a_stable_mac_is_local_unicast_and_differs_by_interface() {
        let (first, again, second) = (
            MacAddress::stable("vm", 0),
            MacAddress::stable("vm", 0),
            MacAddress::stable("vm", 1),
        );
        assert_eq!(first, again);
        assert_ne!(first, second);
        assert_eq!(first.octets()[0] & 3, 2);
    }

    #[test]
    fn interface_names_that_linux_refuses_are_refused() {
        for text in ["", "..", "a/b", "a b", "sixteen-letters-", "tap%d", "a:b"] {
            assert!(text.parse::<TapName>().is_err(), "{text}");
        }
        assert_eq!("rvm-tap0".parse::<TapName>().unwrap().as_str(), "rvm-tap0");
    }
}
