//! Network interfaces of a machine.

use std::fmt;
use std::str::FromStr;

use crate::limits::MAX_TAP_NAME;

/// A network interface connected to a tap of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Net {
    /// The tap, which must exist when the machine starts.
    pub tap: TapName,
    /// The guest's address; made from the machine's identity where none is given.
    pub mac: MacAddress,
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
        let group = octets[0] & 1 == 1;
        if parts.next().is_some() || group || octets == [0; 6] {
            return Err(err());
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
