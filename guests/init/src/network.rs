//! Asks for the addresses of the guest's interfaces, in processes of their own: a guest does not wait for its network.
//!
//! IPv4 by DHCP. Of IPv6 the kernel takes the router and the link's prefix from advertisements by itself.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, socket};

use crate::lease::{self, Answer, Lease};
use crate::{loopback, say};

/// The first argument that turns us into the one who asks for an interface.
pub const WORD: &str = "network";

/// The kernel keeps our file through this link even if somebody in the guest removes it.
const OURSELVES: &str = "/proc/self/exe";

const INTERFACES: &str = "/sys/class/net";
const RESOLVER: &str = "/etc/resolv.conf";

/// How long each question waits for its answer, one after the other; then nobody is there who gives addresses.
const PATIENCE: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// Longest answer: what an Ethernet frame holds.
const MAX_ANSWER: usize = 1500;

const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
/// `NLM_F_REQUEST`, `NLM_F_REPLACE`, `NLM_F_CREATE`.
const MAKE: u16 = 0x501;
const INET: u8 = 2;
const MAIN_TABLE: u8 = 254;
const BY_BOOT: u8 = 3;
const LINK: u8 = 253;
const EVERYWHERE: u8 = 0;
const UNICAST: u8 = 1;

/// Has each interface of the guest, but the loopback, ask for its address.
pub fn bring_up() {
    let Ok(interfaces) = fs::read_dir(INTERFACES) else {
        return;
    };
    for name in interfaces.flatten().map(|entry| entry.file_name()) {
        if name == "lo" {
            continue;
        }
        if let Err(error) = Command::new(OURSELVES).arg(WORD).arg(&name).spawn() {
            say::problem("cannot bring the network up", error);
        }
    }
}

/// Asks for one interface's address for as long as the guest lives; ends where it is given for ever, or by nobody.
pub fn become_it(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let name = arguments.next().unwrap_or_default();
    match keep(&name.to_string_lossy()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::problem(&format!("no address for {}", name.to_string_lossy()), error);
            ExitCode::FAILURE
        }
    }
}

fn keep(name: &str) -> io::Result<()> {
    let read = |what: &str| fs::read_to_string(format!("{INTERFACES}/{name}/{what}"));
    let index: u32 = read("ifindex")?.trim().parse().map_err(io::Error::other)?;
    let mac = octets(read("address")?.trim()).ok_or_else(|| io::Error::other("it is no Ethernet"))?;
    loopback::switch_on(index)?;
    loop {
        let Some(lease) = ask(index, mac)? else {
            return Ok(());
        };
        take(index, &lease)?;
        if lease.seconds == u32::MAX {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(u64::from(lease.seconds / 2).max(1)));
    }
}

/// A lease; none where nobody answers.
fn ask(index: u32, mac: [u8; 6]) -> io::Result<Option<Lease>> {
    // What goes to everybody needs a way, too.
    tell(&route(index, Some(Ipv4Addr::BROADCAST), None))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68))?;
    socket.set_broadcast(true)?;
    let transaction = u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]);
    let mut offer = None;
    for seconds in PATIENCE {
        socket.set_read_timeout(Some(Duration::from_secs(seconds)))?;
        // Where it cannot be sent yet it is sent again.
        let question = lease::question(mac, transaction, offer.as_ref());
        socket.send_to(&question, (Ipv4Addr::BROADCAST, 67)).ok();
        match hear(&socket, mac, transaction) {
            Some(Answer::Given(lease)) => return Ok(Some(lease)),
            Some(Answer::Offer(lease)) => {
                let question = lease::question(mac, transaction, Some(&lease));
                socket.send_to(&question, (Ipv4Addr::BROADCAST, 67)).ok();
                if let Some(Answer::Given(lease)) = hear(&socket, mac, transaction) {
                    return Ok(Some(lease));
                }
                offer = Some(lease);
            }
            Some(Answer::Denied) => offer = None,
            None => {}
        }
    }
    Ok(None)
}

/// The next answer to us, within the socket's patience.
fn hear(socket: &UdpSocket, mac: [u8; 6], transaction: u32) -> Option<Answer> {
    let mut bytes = [0; MAX_ANSWER];
    loop {
        let count = socket.recv(&mut bytes).ok()?;
        if let Some(answer) = lease::answer(&bytes[..count], mac, transaction) {
            return Some(answer);
        }
    }
}

fn take(index: u32, lease: &Lease) -> io::Result<()> {
    tell(&address(index, lease))?;
    if let Some(router) = lease.router {
        tell(&route(index, None, Some(router)))?;
    }
    if lease.dns.is_empty() {
        return Ok(());
    }
    let search = lease.domain.iter().map(|domain| format!("search {domain}\n"));
    let servers = lease.dns.iter().map(|server| format!("nameserver {server}\n"));
    let text: String = search.chain(servers).collect();
    fs::create_dir_all("/etc")?;
    // A link to where some program would have put it leads nowhere here.
    fs::remove_file(RESOLVER).ok();
    fs::write(RESOLVER, text)
}

/// The message that gives the interface the lease's address.
fn address(index: u32, lease: &Lease) -> Vec<u8> {
    let mut body = vec![INET, lease.prefix, 0, EVERYWHERE];
    body.extend(index.to_ne_bytes());
    body.extend(attribute(2, &lease.address.octets()));
    body.extend(attribute(1, &lease.address.octets()));
    message(NEW_ADDRESS, &body)
}

/// The message that makes a route through the interface: to one address on the link, or to all through a router.
fn route(index: u32, to: Option<Ipv4Addr>, by: Option<Ipv4Addr>) -> Vec<u8> {
    let (bits, scope) = if to.is_some() { (32, LINK) } else { (0, EVERYWHERE) };
    let mut body = vec![INET, bits, 0, 0, MAIN_TABLE, BY_BOOT, scope, UNICAST, 0, 0, 0, 0];
    body.extend(to.iter().flat_map(|to| attribute(1, &to.octets())));
    body.extend(by.iter().flat_map(|by| attribute(5, &by.octets())));
    body.extend(attribute(4, &index.to_ne_bytes()));
    message(NEW_ROUTE, &body)
}

fn attribute(kind: u16, value: &[u8; 4]) -> [u8; 8] {
    let [a, b, c, d] = *value;
    let ([l, m], [t, u]) = (8_u16.to_ne_bytes(), kind.to_ne_bytes());
    [l, m, t, u, a, b, c, d]
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

fn tell(message: &[u8]) -> io::Result<()> {
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    sendto(socket, message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

fn octets(text: &str) -> Option<[u8; 6]> {
    let parts: Option<Vec<u8>> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    parts?.try_into().ok()
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
    fn only_ethernet_addresses_have_six_parts() {
        assert_eq!(octets("02:00:00:00:00:0a"), Some([2, 0, 0, 0, 0, 10]));
        assert_eq!(octets("00:00:00:00"), None);
    }
}
