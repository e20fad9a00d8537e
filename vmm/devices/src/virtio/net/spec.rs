//! Layout and bits of the network device (5.1).

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
};

use super::{NetOptions, Offloads};
use crate::virtio::device::read_config_bytes;

/// Buffers of each queue for frames, and of the one for commands.
pub(super) const FRAME_QUEUE: u16 = 256;
pub(super) const CONTROL_QUEUE: u16 = 64;

pub(super) const FEATURE_CSUM: u64 = 1 << VIRTIO_NET_F_CSUM;
pub(super) const FEATURE_HOST_TSO4: u64 = 1 << VIRTIO_NET_F_HOST_TSO4;
pub(super) const FEATURE_HOST_TSO6: u64 = 1 << VIRTIO_NET_F_HOST_TSO6;
pub(super) const FEATURE_HOST_ECN: u64 = 1 << VIRTIO_NET_F_HOST_ECN;
pub(super) const FEATURE_MRG_RXBUF: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
pub(super) const FEATURE_MQ: u64 = 1 << VIRTIO_NET_F_MQ;
pub(super) const FEATURE_COMMANDS: u64 = 1 << VIRTIO_NET_F_CTRL_VQ;
pub(super) const FEATURE_MTU: u64 = 1 << VIRTIO_NET_F_MTU;
const FEATURE_GUEST_CSUM: u64 = 1 << VIRTIO_NET_F_GUEST_CSUM;
const FEATURE_GUEST_TSO4: u64 = 1 << VIRTIO_NET_F_GUEST_TSO4;
const FEATURE_GUEST_TSO6: u64 = 1 << VIRTIO_NET_F_GUEST_TSO6;
const FEATURE_GUEST_ECN: u64 = 1 << VIRTIO_NET_F_GUEST_ECN;
const GUEST_OFFLOADS: u64 = FEATURE_GUEST_CSUM | FEATURE_GUEST_TSO4 | FEATURE_GUEST_TSO6 | FEATURE_GUEST_ECN;

/// What every interface has.
pub(super) const FEATURES: u64 = 1 << VIRTIO_NET_F_MAC
    | 1 << VIRTIO_NET_F_STATUS
    | FEATURE_COMMANDS
    | 1 << VIRTIO_NET_F_CTRL_RX
    | FEATURE_MRG_RXBUF;
/// What one has besides whose network does what is left undone in a frame.
pub(super) const OFFLOADS: u64 = FEATURE_CSUM
    | FEATURE_HOST_TSO4
    | FEATURE_HOST_TSO6
    | FEATURE_HOST_ECN
    | GUEST_OFFLOADS
    | 1 << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;

/// Of these what is agreed upon by commands.
pub(super) const OF_COMMANDS: u64 =
    FEATURE_COMMANDS | 1 << VIRTIO_NET_F_CTRL_RX | 1 << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;

/// Shortest frame: two addresses and a type.
pub(super) const MIN_FRAME: u64 = 14;

/// Bytes of the config space: address, status, pairs of queues, MTU.
const CONFIG_LEN: usize = 12;

/// Reads the config space of an interface with so many pairs of queues.
pub(super) fn read_config(options: &NetOptions, pairs: u16, offset: u64, data: &mut [u8]) {
    let mut config = [0; CONFIG_LEN];
    config[..6].copy_from_slice(&options.mac);
    config[6..8].copy_from_slice(&options.link.status().to_le_bytes());
    config[8..10].copy_from_slice(&pairs.to_le_bytes());
    config[10..].copy_from_slice(&options.mtu.unwrap_or(0).to_le_bytes());
    read_config_bytes(&config, offset, data);
}

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Frames of this pair to the driver.
    Receive(usize),
    /// Frames of this pair from the driver.
    Transmit(usize),
    /// Commands.
    Control,
    /// None, with these features.
    Nothing,
}

/// What the queue with this index is for: the commands come behind the pairs that the driver knows of, if it knows of
/// commands (5.1.2).
pub(super) fn role(index: usize, acked: u64, pairs: usize) -> Role {
    let known = if acked & FEATURE_MQ == 0 { 1 } else { pairs };
    match index {
        _ if index == 2 * known && acked & FEATURE_COMMANDS != 0 => Role::Control,
        _ if index >= 2 * known => Role::Nothing,
        _ if index.is_multiple_of(2) => Role::Receive(index / 2),
        _ => Role::Transmit(index / 2),
    }
}

/// What a driver takes that has accepted these features.
pub(super) fn accepted(features: u64) -> Offloads {
    Offloads {
        checksum: features & FEATURE_GUEST_CSUM != 0,
        tso4: features & FEATURE_GUEST_TSO4 != 0,
        tso6: features & FEATURE_GUEST_TSO6 != 0,
        ecn: features & FEATURE_GUEST_ECN != 0,
    }
}
