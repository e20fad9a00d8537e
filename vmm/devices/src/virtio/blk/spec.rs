//! Layout and bits of the block device (5.2).

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP,
};

use super::Geometry;

/// Size of each queue.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Data buffers in one request: header and status need a descriptor each.
pub(super) const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes of one data buffer. With this and [`SEG_MAX`], a driver that keeps to both stays below [`MAX_REQUEST`].
pub(super) const SIZE_MAX: u32 = 128 << 10;

/// Requests count in these, whatever the block size.
pub(super) const SECTOR: u64 = 512;
/// What the driver shall use as logical block. Partition tables count in it, so it does not depend on the host.
pub(super) const BLOCK_SIZE: u32 = 512;

/// What the driver shall like best, in bytes: what sequential reads ask for at once. Linux reads twice as far ahead, and
/// else no more than 128 KiB at a time, each of which costs a round trip.
pub(super) const OPTIMAL: u32 = 512 << 10;

/// Bytes of a request's header.
pub(super) const HEADER_LEN: usize = 16;

/// Most bytes that one request reads or writes. Linux asks for far fewer; a guest that names its whole RAM several
/// times over must not keep its disk busy for ever.
pub(super) const MAX_REQUEST: u64 = 32 << 20;

/// Bytes of one segment of a discard or write-zeroes request.
pub(super) const SEGMENT_LEN: usize = 16;
/// Segments in a request to discard.
pub(super) const MAX_DISCARD_SEGMENTS: u32 = 8;
/// Sectors in each of them: 64 MiB. Metadata has to be changed for all of it.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 17;
/// Segments in a request to write zeroes.
pub(super) const MAX_ZEROES_SEGMENTS: u32 = 1;
/// Sectors in it: as many as a write may have, for a file system may know no better way than to write them.
pub(super) const MAX_ZEROES_SECTORS: u32 = 1 << 16;

pub(super) const FEATURE_SIZE_MAX: u64 = 1 << VIRTIO_BLK_F_SIZE_MAX;
pub(super) const FEATURE_SEG_MAX: u64 = 1 << VIRTIO_BLK_F_SEG_MAX;
pub(super) const FEATURE_READ_ONLY: u64 = 1 << VIRTIO_BLK_F_RO;
pub(super) const FEATURE_BLOCK_SIZE: u64 = 1 << VIRTIO_BLK_F_BLK_SIZE;
pub(super) const FEATURE_FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;
pub(super) const FEATURE_TOPOLOGY: u64 = 1 << VIRTIO_BLK_F_TOPOLOGY;
pub(super) const FEATURE_CONFIG_WCE: u64 = 1 << VIRTIO_BLK_F_CONFIG_WCE;
pub(super) const FEATURE_MQ: u64 = 1 << VIRTIO_BLK_F_MQ;
pub(super) const FEATURE_DISCARD: u64 = 1 << VIRTIO_BLK_F_DISCARD;
pub(super) const FEATURE_WRITE_ZEROES: u64 = 1 << VIRTIO_BLK_F_WRITE_ZEROES;

/// `struct virtio_blk_config` up to `write_zeroes_may_unmap` and its padding; the fields after it belong to features
/// that are not offered.
const CONFIG_LEN: usize = 60;
/// Where a driver switches between write-back (1) and write-through (0).
pub(super) const WRITEBACK: usize = 32;

/// What a request that succeeds is answered.
pub(super) const OK: u8 = VIRTIO_BLK_S_OK.to_le_bytes()[0];

/// What a request that fails is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Failure {
    Io = VIRTIO_BLK_S_IOERR.to_le_bytes()[0],
    Unsupported = VIRTIO_BLK_S_UNSUPP.to_le_bytes()[0],
}

/// What config space tells of a disk.
pub(super) struct Config {
    pub(super) sectors: u64,
    pub(super) geometry: Geometry,
    pub(super) writeback: bool,
    pub(super) queues: u16,
}

// === impl Config ===

impl Config {
    pub(super) fn bytes(&self) -> [u8; CONFIG_LEN] {
        let blocks = |bytes: u32| (bytes / BLOCK_SIZE).max(1);
        let physical = blocks(self.geometry.physical_block);
        let mut bytes = [0; CONFIG_LEN];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &self.sectors.to_le_bytes());
        put(8, &SIZE_MAX.to_le_bytes());
        put(12, &SEG_MAX.to_le_bytes());
        put(20, &BLOCK_SIZE.to_le_bytes());
        // Topology: how many logical blocks a physical one has, as a power of two; the least that is worth a request;
        // how much is best.
        put(24, &physical.ilog2().to_le_bytes()[..1]);
        put(26, &physical.to_le_bytes()[..2]);
        put(28, &blocks(OPTIMAL).to_le_bytes());
        put(WRITEBACK, &[u8::from(self.writeback)]);
        put(34, &self.queues.to_le_bytes());
        put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
        put(40, &MAX_DISCARD_SEGMENTS.to_le_bytes());
        put(44, &blocks(self.geometry.discard).to_le_bytes());
        put(48, &MAX_ZEROES_SECTORS.to_le_bytes());
        put(52, &MAX_ZEROES_SEGMENTS.to_le_bytes());
        put(56, &[1]);
        bytes
    }
}
