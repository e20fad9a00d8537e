//! Addresses and routes of the guest's interfaces, one netlink message each.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, socket};

const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
/// `NLM_F_REQUEST`, `NLM_F_REPLACE`, `NLM_F_CREATE`.
const MAKE: u16 = 0x501;
const INET: u8 = 2;
const INET6: u8 = 10;
/// `IFA_F_NODAD`: whoever gave the address knows that nobody else has it.
const AT_ONCE: u8 = 2;
const MAIN_TABLE: u8 = 254;
const BY_BOOT: u8 = 3;
const LINK: u8 = 253;
const EVERYWHERE: u8 = 0;
const UNICAST: u8 = 1;

/// The message that gives the interface an address.
pub fn address(index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let (family, flags, octets) = match address {
        IpAddr::V4(v4) => (INET, 0, v4.octets().to_vec()),
        IpAddr::V6(v6) => (INET6, AT_ONCE, v6.octets().to_vec()),
    };
    let mut body = vec![family, prefix, flags, EVERYWHERE];
    body.extend(index.to_ne_bytes());
    body.extend(attribute(2, &octets));
    body.extend(attribute(1, &octets));
    message(NEW_ADDRESS, &body)
}

/// The message that makes a route through the interface: to one address on the link, or to all through a router.
pub fn route(index: u32, to: Option<Ipv4Addr>, by: Option<Ipv4Addr>) -> Vec<u8> {
    let (bits, scope) = if to.is_some() { (32, LINK) } else { (0, EVERYWHERE) };
    let mut body = vec![INET, bits, 0, 0, MAIN_TABLE, BY_BOOT, scope, UNICAST, 0, 0, 0, 0];
    body.extend(to.iter().flat_map(|to| attribute(1, &to.octets())));
    body.extend(by.iter().flat_map(|by| attribute(5, &by.octets())));
    body.extend(attribute(4, &index.to_ne_bytes()));
    message(NEW_ROUTE, &body)
}

/// Of whole words, as all our values are.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(0);
    [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or(0);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(MAKE.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// Tells the kernel.
pub fn tell(message: &[u8]) -> io::Result<()> {
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    sendto(socket, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_their_length_and_attributes_are_whole_words() {
        let route = route(2, None, Some(Ipv4Addr::new(10, 0, 2, 1)));
        assert_eq!(route.len(), 16 + 12 + 16);
        assert_eq!(route[..4], 44_u32.to_ne_bytes());
        assert!(route.ends_with(&attribute(4, &2_u32.to_ne_bytes())));
    }

    #[test]
    fn an_address_is_of_its_family() {
        let lease = address(2, "fd10:0:2::2".parse().unwrap(), 128);
        assert_eq!(lease.len(), 16 + 8 + 2 * 20);
        assert_eq!(lease[16..20], [INET6, 128, AT_ONCE, EVERYWHERE]);
        assert_eq!(address(2, IpAddr::from([10, 0, 2, 2]), 24)[16..18], [INET, 24]);
    }
}
