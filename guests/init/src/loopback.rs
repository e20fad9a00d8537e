//! Brings the loopback up with one netlink message; everything on 127.0.0.1 needs it, and images bring no tool for sure.
//! Other links go up in the same way.

use std::io;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, socket};

use crate::say;

/// `RTM_NEWLINK`: make a link, or change one that is there.
const NEW_LINK: u16 = 16;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// The loopback is the first link of every network namespace.
const LOOPBACK: u32 = 1;
/// `IFF_UP`.
const UP: u32 = 1;

/// A netlink header of 16 bytes and an `ifinfomsg` of 16.
const LENGTH: u32 = 32;

/// Brings the loopback up.
pub fn bring_up() {
    if let Err(error) = switch_on(LOOPBACK) {
        say::problem("cannot bring the loopback up", error);
    }
}

/// Brings a link up.
pub fn switch_on(link: u32) -> io::Result<()> {
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(socket, &message(link), SendFlags::empty(), &kernel)?;
    Ok(())
}

fn message(link: u32) -> [u8; LENGTH as usize] {
    let mut bytes = [0; LENGTH as usize];
    bytes[0..4].copy_from_slice(&LENGTH.to_ne_bytes());
    bytes[4..6].copy_from_slice(&NEW_LINK.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    bytes[20..24].copy_from_slice(&link.to_ne_bytes());
    // The flags, and which of them are meant.
    bytes[24..28].copy_from_slice(&UP.to_ne_bytes());
    bytes[28..32].copy_from_slice(&UP.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_says_its_length_and_means_the_up_flag_of_the_first_link() {
        let words: Vec<u32> = message(LOOPBACK)
            .chunks_exact(4)
            .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(
            [words[0], words[5], words[6], words[7]],
            [LENGTH, LOOPBACK, UP, UP]
        );
    }
}
