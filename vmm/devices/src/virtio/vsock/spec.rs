//! Layout of the socket device's packets (5.10.6).

use super::{Op, Packet};
use crate::blunt::Check;

/// Queues: packets to the driver, packets from it, events (of which there are none without migration).
pub(super) const RECEIVE: usize = 0;
pub(super) const TRANSMIT: usize = 1;
pub(super) const QUEUE_SIZES: [u16; 3] = [128, 128, 16];

/// The host's number in every address.
pub(super) const HOST_CID: u64 = 2;
/// `struct virtio_vsock_hdr`.
pub(super) const HEADER_LEN: usize = 44;

const TYPE_STREAM: u16 = 1;

const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RST: u16 = 3;
const SHUTDOWN: u16 = 4;
const RW: u16 = 5;
const CREDIT_UPDATE: u16 = 6;
const CREDIT_REQUEST: u16 = 7;

/// Flags of a shutdown: the sender will receive no more, and send no more.
const NO_RECEIVE: u32 = 1;
const NO_SEND: u32 = 2;

/// Reads a header and the length of the data behind it; `None` where it is from someone else than this guest, to
/// someone else than the host, about another kind of socket, or without meaning.
pub(super) fn parse(header: &[u8; HEADER_LEN], guest_cid: u64) -> Option<(Packet, u32)> {
    let (src, dst) = (u64_at(header, 0), u64_at(header, 8));
    let own = src == guest_cid || Check::PacketSource.is_out();
    if !own || dst != HOST_CID || u16_at(header, 28) != TYPE_STREAM {
        return None;
    }
    let flags = u32_at(header, 32);
    let op = match u16_at(header, 30) {
        REQUEST => Op::Request,
        RESPONSE => Op::Response,
        RST => Op::Reset,
        SHUTDOWN => Op::Shutdown {
            receive: flags & NO_RECEIVE != 0,
            send: flags & NO_SEND != 0,
        },
        RW => Op::Data,
        CREDIT_UPDATE => Op::CreditUpdate,
        CREDIT_REQUEST => Op::CreditRequest,
        _ => return None,
    };
    let packet = Packet {
        guest_port: u32_at(header, 16),
        host_port: u32_at(header, 20),
        op,
        buffer: u32_at(header, 36),
        forwarded: u32_at(header, 40),
    };
    Some((packet, u32_at(header, 24)))
}

/// The header of a packet to the guest with so many bytes of data.
pub(super) fn header(packet: &Packet, len: u32, guest_cid: u64) -> [u8; HEADER_LEN] {
    let (op, flags) = match packet.op {
        Op::Request => (REQUEST, 0),
        Op::Response => (RESPONSE, 0),
        Op::Reset => (RST, 0),
        Op::Shutdown { receive, send } => {
            let bits = [(receive, NO_RECEIVE), (send, NO_SEND)];
            (
                SHUTDOWN,
                bits.iter().map(|&(on, bit)| if on { bit } else { 0 }).sum(),
            )
        }
        Op::Data => (RW, 0),
        Op::CreditUpdate => (CREDIT_UPDATE, 0),
        Op::CreditRequest => (CREDIT_REQUEST, 0),
    };
    let mut header = [0; HEADER_LEN];
    header[0..8].copy_from_slice(&HOST_CID.to_le_bytes());
    header[8..16].copy_from_slice(&guest_cid.to_le_bytes());
    header[16..20].copy_from_slice(&packet.host_port.to_le_bytes());
    header[20..24].copy_from_slice(&packet.guest_port.to_le_bytes());
    header[24..28].copy_from_slice(&len.to_le_bytes());
    header[28..30].copy_from_slice(&TYPE_STREAM.to_le_bytes());
    header[30..32].copy_from_slice(&op.to_le_bytes());
    header[32..36].copy_from_slice(&u32::to_le_bytes(flags));
    header[36..40].copy_from_slice(&packet.buffer.to_le_bytes());
    header[40..44].copy_from_slice(&packet.forwarded.to_le_bytes());
    header
}

fn u64_at(header: &[u8; HEADER_LEN], at: usize) -> u64 {
    u64::from(u32_at(header, at)) | u64::from(u32_at(header, at + 4)) << 32
}

fn u32_at(header: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from(u16_at(header, at)) | u32::from(u16_at(header, at + 2)) << 16
}

fn u16_at(header: &[u8; HEADER_LEN], at: usize) -> u16 {
    u16::from_le_bytes([header[at], header[at + 1]])
}
