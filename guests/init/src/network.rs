//! Asks for the addresses of the guest's interfaces, in processes of their own: a guest does not wait for its network.
//!
//! Both by DHCP, side by side: who gives the one need not give the other. Of IPv6 the kernel takes the router and the link's prefix
//! from advertisements by itself.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use crate::lease::{self, Answer, Lease};
use crate::netlink::{address, route, tell};
use crate::resolver::Resolver;
use crate::{lease6, loopback, say};

/// The first argument that turns us into the one who asks for an interface.
pub const WORD: &str = "network";

/// The kernel keeps our file through this link even if somebody in the guest removes it.
const OURSELVES: &str = "/proc/self/exe";

const INTERFACES: &str = "/sys/class/net";
/// Settings of IPv6, one folder for each interface; none where the kernel does not speak it.
const IPV6: &str = "/proc/sys/net/ipv6/conf";

/// How long each question waits for its answer, one after the other; then nobody is there who gives addresses.
const PATIENCE: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// Longest answer: what an Ethernet frame holds.
const MAX_ANSWER: usize = 1500;

/// Words of others that are heard while we wait for an answer.
const MAX_OTHERS: usize = 64;

/// Where DHCPv6's servers listen on a link, and where its clients do.
const SERVERS: (Ipv6Addr, u16) = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2), 547);
const CLIENT: u16 = 546;

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
    let speaks_v6 = fs::exists(IPV6)?;
    if speaks_v6 {
        // Nobody else has the address that follows from ours; so it can be used at once, for asking.
        fs::write(format!("{IPV6}/{name}/accept_dad"), "0")?;
    }
    loopback::switch_on(index)?;
    let resolver = Resolver::default();
    thread::scope(|threads| {
        let ask_v6 = || keep_v6(index, mac, &resolver);
        let v6 = speaks_v6.then(|| thread::Builder::new().spawn_scoped(threads, ask_v6));
        let v6 = v6.transpose()?;
        let v4 = keep_v4(index, mac, &resolver);
        let v6 = v6.and_then(|thread| thread.join().ok());
        v4.and(v6.unwrap_or(Ok(())))
    })
}

fn keep_v4(index: u32, mac: [u8; 6], resolver: &Resolver) -> io::Result<()> {
    while let Some(lease) = ask(index, mac)? {
        take(index, &lease, resolver)?;
        if !wait_for_half(lease.seconds) {
            break;
        }
    }
    Ok(())
}

fn keep_v6(index: u32, mac: [u8; 6], resolver: &Resolver) -> io::Result<()> {
    while let Some(lease) = ask_v6(index, mac)? {
        // All others on the link are known from advertisements.
        tell(&address(index, lease.address.into(), 128))?;
        resolver.learn_v6(&lease.dns)?;
        if !wait_for_half(lease.seconds) {
            break;
        }
    }
    Ok(())
}

/// Waits until it is time to ask for a lease again; false where that never comes.
fn wait_for_half(seconds: u32) -> bool {
    if seconds == u32::MAX {
        return false;
    }
    thread::sleep(Duration::from_secs(u64::from(seconds / 2).max(1)));
    true
}

/// A lease of IPv6; none where nobody answers.
fn ask_v6(index: u32, mac: [u8; 6]) -> io::Result<Option<lease6::Lease>> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, CLIENT))?;
    let servers = SocketAddrV6::new(SERVERS.0, SERVERS.1, 0, index);
    let transaction = [mac[3], mac[4], mac[5]];
    let answer = |bytes: &[u8]| lease6::answer(bytes, mac, transaction);
    let mut offer = None;
    for seconds in PATIENCE {
        socket.set_read_timeout(Some(Duration::from_secs(seconds)))?;
        // Where it cannot be sent yet it is sent again.
        let question = lease6::question(mac, transaction, offer.as_ref());
        socket.send_to(&question, servers).ok();
        match hear(&socket, answer) {
            Some(lease6::Answer::Given(lease)) => return Ok(Some(lease)),
            Some(lease6::Answer::Offer(lease)) => {
                let question = lease6::question(mac, transaction, Some(&lease));
                socket.send_to(&question, servers).ok();
                if let Some(lease6::Answer::Given(lease)) = hear(&socket, answer) {
                    return Ok(Some(lease));
                }
                // Who offers and does not give is not asked alone again.
                offer = None;
            }
            None => {}
        }
    }
    Ok(None)
}

/// A lease; none where nobody answers.
fn ask(index: u32, mac: [u8; 6]) -> io::Result<Option<Lease>> {
    // What goes to everybody needs a way, too.
    tell(&route(index, Some(Ipv4Addr::BROADCAST), None))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68))?;
    socket.set_broadcast(true)?;
    let transaction = u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]]);
    let answer = |bytes: &[u8]| lease::answer(bytes, mac, transaction);
    let mut offer = None;
    for seconds in PATIENCE {
        socket.set_read_timeout(Some(Duration::from_secs(seconds)))?;
        // Where it cannot be sent yet it is sent again.
        let question = lease::question(mac, transaction, offer.as_ref());
        socket.send_to(&question, (Ipv4Addr::BROADCAST, 67)).ok();
        match hear(&socket, answer) {
            Some(Answer::Given(lease)) => return Ok(Some(lease)),
            Some(Answer::Offer(lease)) => {
                let question = lease::question(mac, transaction, Some(&lease));
                socket.send_to(&question, (Ipv4Addr::BROADCAST, 67)).ok();
                if let Some(Answer::Given(lease)) = hear(&socket, answer) {
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

/// The next answer to us, within the socket's patience: other words use it up, however many come.
fn hear<A>(socket: &UdpSocket, read: impl Fn(&[u8]) -> Option<A>) -> Option<A> {
    let mut bytes = [0; MAX_ANSWER];
    for _ in 0..MAX_OTHERS {
        let count = socket.recv(&mut bytes).ok()?;
        if let Some(answer) = read(&bytes[..count]) {
            return Some(answer);
        }
    }
    None
}

fn take(index: u32, lease: &Lease, resolver: &Resolver) -> io::Result<()> {
    tell(&address(index, lease.address.into(), lease.prefix))?;
    if let Some(router) = lease.router {
        tell(&route(index, None, Some(router)))?;
    }
    resolver.learn(&lease.dns, lease.domain.clone())
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
    fn only_ethernet_addresses_have_six_parts() {
        assert_eq!(octets("02:00:00:00:00:0a"), Some([2, 0, 0, 0, 0, 10]));
        assert_eq!(octets("00:00:00:00"), None);
    }
}
