//! Layout and bits of the network device (5.1).

use virtio_bindings::virtio_net::{VIRTIO_NET_F_MAC, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE};

/// Queue that the driver gives buffers for received frames to.
pub(super) const RECEIVE: usize = 0;
/// Queue that the driver puts frames to send on.
pub(super) const TRANSMIT: usize = 1;
pub(super) const QUEUE_SIZES: [u16; 2] = [256, 256];

pub(super) const FEATURE_MAC: u64 = 1 << VIRTIO_NET_F_MAC;

/// `struct virtio_net_hdr_v1`, before every frame in either direction.
pub(super) const HEADER_LEN: usize = 12;
const FLAGS: usize = 0;
const GSO_TYPE: usize = 1;
const NUM_BUFFERS: usize = 10;

/// Shortest frame: two addresses and a type.
pub(super) const MIN_FRAME: u64 = 14;

/// The header of a received frame: no offload, in one buffer (5.1.6.4).
pub(super) const RECEIVED: [u8; HEADER_LEN] = {
    let mut header = [0; HEADER_LEN];
    header[NUM_BUFFERS] = 1;
    header
};

/// Whether a header asks for nothing: no offload was offered, so none may be asked for.
pub(super) fn is_plain(header: [u8; HEADER_LEN]) -> bool {
    u32::from(header[FLAGS]) & VIRTIO_NET_HDR_F_NEEDS_CSUM == 0
        && u32::from(header[GSO_TYPE]) == VIRTIO_NET_HDR_GSO_NONE
}
