//! The driver's commands (5.1.6.5): class, command, data │ one byte of answer.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_CTRL_MQ,
    VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, VIRTIO_NET_ERR,
    VIRTIO_NET_OK,
};

use crate::virtio::buffers::{Buffers, Part};

/// What a driver wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// It will use so many pairs of queues.
    Pairs(u16),
    /// It takes frames with these features' work left undone.
    Offloads(u64),
    /// Which frames it wants to see: it sees all.
    Filter,
}

/// Reads one command; `None` for one that nobody understands.
pub(super) fn parse(from: &mut Part<'_, '_>) -> Option<Command> {
    let [class, command] = take(from)?;
    match (u32::from(class), u32::from(command)) {
        (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) => {
            Some(Command::Pairs(u16::from_le_bytes(take(from)?)))
        }
        (VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET) => {
            Some(Command::Offloads(u64::from_le_bytes(take(from)?)))
        }
        (VIRTIO_NET_CTRL_RX, 0..=VIRTIO_NET_CTRL_RX_NOBCAST) => {
            take::<1>(from)?;
            Some(Command::Filter)
        }
        _ => None,
    }
}

fn take<const N: usize>(from: &mut Part<'_, '_>) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    (from.read(&mut bytes) == N).then_some(bytes)
}

/// Answers one command; a driver that left no room for it goes without.
pub(super) fn answer(buffers: &mut Buffers<'_>, done: bool) -> u32 {
    let code = if done { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
    let (_, mut to) = buffers.parts();
    u32::from(to.write(&code.to_le_bytes()[..1]) == 1)
}
