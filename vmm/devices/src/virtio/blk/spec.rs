//! Layout and bits of the block device (5.2).

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_S_IOERR,
    VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
};

/// Size of the only queue.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Data buffers in one request: header and status need a descriptor each.
pub(super) const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// Requests count in these, whatever the block size.
pub(super) const SECTOR: u64 = 512;
/// What the driver shall use as logical block.
pub(super) const BLOCK_SIZE: u32 = 512;

/// Bytes of a request's header.
pub(super) const HEADER_LEN: usize = 16;

/// Most bytes that one request moves. Linux asks for far fewer; a guest that names its whole RAM several times over must
/// not hold up the event loop.
pub(super) const MAX_REQUEST: u64 = 32 << 20;

pub(super) const FEATURE_SEG_MAX: u64 = 1 << VIRTIO_BLK_F_SEG_MAX;
pub(super) const FEATURE_READ_ONLY: u64 = 1 << VIRTIO_BLK_F_RO;
pub(super) const FEATURE_BLOCK_SIZE: u64 = 1 << VIRTIO_BLK_F_BLK_SIZE;
pub(super) const FEATURE_FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;

/// `struct virtio_blk_config` up to `blk_size`; the fields after it belong to features that are not offered.
const CONFIG_LEN: usize = 24;
const CAPACITY: usize = 0;
const SEGMENTS: usize = 12;
const BLOCK: usize = 20;

/// What a request that succeeds is answered.
pub(super) const OK: u8 = VIRTIO_BLK_S_OK.to_le_bytes()[0];

/// What a request that fails is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Failure {
    Io = VIRTIO_BLK_S_IOERR.to_le_bytes()[0],
    Unsupported = VIRTIO_BLK_S_UNSUPP.to_le_bytes()[0],
}

/// Config space of a disk with so many sectors.
pub(super) fn config(sectors: u64) -> [u8; CONFIG_LEN] {
    let mut config = [0; CONFIG_LEN];
    config[CAPACITY..CAPACITY + 8].copy_from_slice(&sectors.to_le_bytes());
    config[SEGMENTS..SEGMENTS + 4].copy_from_slice(&SEG_MAX.to_le_bytes());
    config[BLOCK..BLOCK + 4].copy_from_slice(&BLOCK_SIZE.to_le_bytes());
    config
}
