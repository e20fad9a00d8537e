//! The messages of the vhost-user protocol that are needed here, as bytes.
//!
//! Each has a header (request, flags, length of what follows) of three words, the machine's own way round, as is all.

use rvmm_devices::virtio::served::Rings;

/// Bytes of a header.
pub(super) const HEADER: usize = 12;

/// The version, in the lowest bits of the flags.
const VERSION: u32 = 1;
/// The flag of an answer.
const REPLY: u32 = 1 << 2;

/// The bit in a ring's features by which a server says that it has features of the protocol.
pub(super) const PROTOCOL_FEATURES: u64 = 1 << 30;
/// The protocol's feature that the number of queues can be asked for.
pub(super) const MULTIQUEUE: u64 = 1 << 0;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Request {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    SetMemory = 5,
    SetRingSize = 8,
    SetRingPlace = 9,
    SetRingBase = 10,
    GetRingBase = 11,
    SetKick = 12,
    SetCall = 13,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    GetQueueCount = 17,
    SetRingEnabled = 18,
}

/// A region of guest memory and where it is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub guest: u64,
    pub len: u64,
    pub offset: u64,
}

/// A whole message.
pub(super) fn message(request: Request, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    for word in [request as u32, VERSION, len] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(body);
    bytes
}

/// Whether this is the header of an answer to `request` with eight bytes behind it: all answers here have so many.
pub(super) fn is_answer(header: &[u8; HEADER], request: Request) -> bool {
    let expected = [request as u32, VERSION | REPLY, 8];
    let (words, _) = header.as_chunks::<4>();
    words.iter().map(|word| u32::from_ne_bytes(*word)).eq(expected)
}

/// The body that says one number of a ring.
pub(super) fn ring_state(ring: u32, value: u32) -> [u8; 8] {
    let mut body = [0; 8];
    body[..4].copy_from_slice(&ring.to_ne_bytes());
    body[4..].copy_from_slice(&value.to_ne_bytes());
    body
}

/// The body that says where a ring lies. The protocol wants addresses of this process there; guest-physical ones do as
/// well where [`memory`] says the same, and tell the server nothing about us.
pub(super) fn ring_place(ring: u32, rings: &Rings) -> Vec<u8> {
    let mut body = ring_state(ring, 0).to_vec();
    for address in [rings.descriptors, rings.used, rings.available, 0] {
        body.extend(address.to_ne_bytes());
    }
    body
}

/// The body that lists guest memory; each region's file goes along.
pub(super) fn memory(regions: &[Region]) -> Vec<u8> {
    let count = u32::try_from(regions.len()).unwrap_or(u32::MAX);
    let mut body = ring_state(count, 0).to_vec();
    for region in regions {
        for word in [region.guest, region.len, region.guest, region.offset] {
            body.extend(word.to_ne_bytes());
        }
    }
    body
}
