//! What handler and keeper say to each other: one JSON text for each packet of a local socket, and descriptors beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::model::{Plan, Protocol};

/// The socket's name in the run directory of all machines.
pub const SOCKET: &str = "network.sock";

/// Longest text: thousands of machines' UIDs.
const MAX_TEXT: usize = 128 << 10;

/// Most descriptors beside a text.
const MAX_DESCRIPTORS: usize = 2;

/// What a handler asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// A machine's network, made unless it is there. Beside the answer come its network namespace, and the user namespace if
    /// that is not the host's.
    Attach {
        /// The machine.
        uid: String,
        /// What it is to be.
        plan: Box<Plan>,
    },
    /// A machine's network is to go.
    Detach {
        /// The machine.
        uid: String,
    },
    /// A machine is kept to these rules of `policy.rs`, which replace the former ones.
    Isolate {
        /// The machine.
        uid: String,
        /// The whole of its table.
        rules: String,
    },
    /// The networks of all other machines are to go.
    Keep {
        /// The machines.
        uids: Vec<String>,
    },
    /// A socket that is being connected to a port of a guest.
    Dial {
        /// The machine.
        uid: String,
        /// Of which protocol.
        protocol: Protocol,
        /// Which port.
        port: u16,
    },
}

/// What the keeper answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It is so.
    Done,
    /// It cannot be.
    Failed(String),
}

/// Says something.
///
/// # Errors
/// Nobody listens.
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, said: &T, beside: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(said)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !beside.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(beside)) {
        return Err(io::Error::other("too many descriptors"));
    }
    sendmsg(
        socket,
        &[IoSlice::new(&text)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Hears something; nothing where the other is gone.
///
/// # Errors
/// It is not understood, or does not come in time.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; MAX_TEXT];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let heard = recvmsg(
        socket.as_fd(),
        &mut [IoSliceMut::new(&mut text)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let beside = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let beside: Vec<OwnedFd> = beside.flatten().collect();
    if heard.bytes == 0 {
        return Ok(None);
    }
    if heard.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::other("it is too long"));
    }
    let said = serde_json::from_slice(text.get(..heard.bytes).unwrap_or_default())?;
    Ok(Some((said, beside)))
}
