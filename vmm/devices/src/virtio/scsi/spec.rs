//! Layout and bits of the SCSI host (5.6), and its bounds.

use virtio_bindings::virtio_scsi::{
    VIRTIO_SCSI_CDB_DEFAULT_SIZE, VIRTIO_SCSI_EVT_RESET_REMOVED, VIRTIO_SCSI_EVT_RESET_RESCAN,
    VIRTIO_SCSI_F_HOTPLUG, VIRTIO_SCSI_S_ABORTED, VIRTIO_SCSI_S_BAD_TARGET, VIRTIO_SCSI_S_FAILURE,
    VIRTIO_SCSI_S_FUNCTION_REJECTED, VIRTIO_SCSI_S_FUNCTION_SUCCEEDED, VIRTIO_SCSI_S_INCORRECT_LUN,
    VIRTIO_SCSI_S_OK, VIRTIO_SCSI_S_OVERRUN, VIRTIO_SCSI_S_RESET, VIRTIO_SCSI_SENSE_DEFAULT_SIZE,
    VIRTIO_SCSI_T_EVENTS_MISSED, VIRTIO_SCSI_T_TRANSPORT_RESET,
};

/// The control queue, the event queue, and one for requests: one thread serves all units.
pub(super) const QUEUE_SIZES: [u16; 3] = [64, 64, 256];
pub(super) const CONTROL: usize = 0;
pub(super) const EVENTS: usize = 1;
pub(super) const REQUESTS: usize = 2;

/// Most logical units. Their numbers fit into the simplest form of a LUN.
pub(super) const MAX_UNITS: u8 = 64;

/// Data buffers in one request: header and response need a descriptor each.
const SEG_MAX: u32 = QUEUE_SIZES[REQUESTS] as u32 - 2;
/// Requests that a driver should send one unit before the first is answered.
const COMMANDS_PER_UNIT: u32 = 128;
/// Bytes of an event.
const EVENT_INFO: u32 = 16;
pub(super) const EVENT_LEN: usize = EVENT_INFO as usize;
/// Events that wait for buffers; if there come more, the driver is told that it missed some, and looks for itself.
pub(super) const MAX_EVENTS: usize = 64;

/// Bytes of a logical block. As that of the other disks, it does not depend on the host.
pub(super) const BLOCK: u32 = 512;
/// Most blocks that one command reads or writes: 32 MiB, the bound of the other disks, less one for the width of old drivers' counters.
pub(super) const MAX_BLOCKS: u32 = 0xffff;
/// What the driver shall like best, in blocks: what sequential reads ask for at once.
pub(super) const OPTIMAL_BLOCKS: u32 = 1 << 10;
/// Descriptors in one UNMAP.
pub(super) const MAX_UNMAP_DESCRIPTORS: usize = 8;
/// Blocks in one UNMAP: 512 MiB. Metadata has to be changed for all of it.
pub(super) const MAX_UNMAP_BLOCKS: u32 = 1 << 20;
/// Blocks in one WRITE SAME: as many as a write may have, for a file system may know no better way than to write them.
pub(super) const MAX_SAME_BLOCKS: u32 = MAX_BLOCKS;
/// LUN, id, task attribute, priority, reference number. The CDB follows.
pub(super) const HEADER_LEN: usize = 19;
/// Bytes of a CDB, which a driver may change between these.
pub(super) const CDB_SIZES: std::ops::RangeInclusive<u32> = 6..=255;
/// As many bytes of a CDB are looked at: no command that is known is longer.
pub(super) const CDB_LEN: usize = 16;
/// Sense length, residual, status qualifier, status, response. The sense follows.
pub(super) const RESPONSE_LEN: usize = 12;
/// Bytes for the sense, which a driver may change between these.
pub(super) const SENSE_SIZES: std::ops::RangeInclusive<u32> = 18..=252;

/// Bytes of a task-management request, and of one about asynchronous notifications.
pub(super) const TASK_LEN: usize = 24;
pub(super) const NOTIFICATION_LEN: usize = 16;

pub(super) const FEATURE_HOTPLUG: u64 = 1 << VIRTIO_SCSI_F_HOTPLUG;

/// Where a driver says how long CDBs and sense are.
const SENSE_SIZE: u64 = 20;
const CDB_SIZE: u64 = 24;
const CONFIG_LEN: usize = 36;

/// How a request was carried on its way; not what its unit says to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Response {
    Ok = low(VIRTIO_SCSI_S_OK),
    Overrun = low(VIRTIO_SCSI_S_OVERRUN),
    Aborted = low(VIRTIO_SCSI_S_ABORTED),
    BadTarget = low(VIRTIO_SCSI_S_BAD_TARGET),
    Reset = low(VIRTIO_SCSI_S_RESET),
    Failure = low(VIRTIO_SCSI_S_FAILURE),
    Succeeded = low(VIRTIO_SCSI_S_FUNCTION_SUCCEEDED),
    Rejected = low(VIRTIO_SCSI_S_FUNCTION_REJECTED),
    IncorrectLun = low(VIRTIO_SCSI_S_INCORRECT_LUN),
}

/// What a driver is told of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Came(u8),
    Went(u8),
}

/// What config space tells, and what a driver writes there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Config {
    pub(super) sense_size: u32,
    pub(super) cdb_size: u32,
}

const fn low(word: u32) -> u8 {
    word.to_le_bytes()[0]
}

/// The unit that eight bytes name, on the only target that there may be; `None` for any other target. A unit that cannot
/// be has a number that none has.
pub(super) fn unit_of(lun: [u8; 8]) -> Option<u8> {
    let [1, 0, high, low, rest @ ..] = lun else {
        return None;
    };
    // Both simple forms of a LUN: by peripheral (00), flat (01).
    let is_simple = matches!(high, 0 | 0x40) && rest == [0; 4];
    Some(if is_simple && low < MAX_UNITS {
        low
    } else {
        MAX_UNITS
    })
}

// === impl Event ===

impl Event {
    pub(super) fn bytes(self, missed: bool) -> [u8; EVENT_LEN] {
        let (lun, reason) = match self {
            Self::Came(lun) => (lun, VIRTIO_SCSI_EVT_RESET_RESCAN),
            Self::Went(lun) => (lun, VIRTIO_SCSI_EVT_RESET_REMOVED),
        };
        let missed = if missed { VIRTIO_SCSI_T_EVENTS_MISSED } else { 0 };
        let mut bytes = [0; EVENT_LEN];
        bytes[..4].copy_from_slice(&(VIRTIO_SCSI_T_TRANSPORT_RESET | missed).to_le_bytes());
        bytes[4] = 1;
        bytes[7] = lun;
        bytes[12..].copy_from_slice(&reason.to_le_bytes());
        bytes
    }
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            sense_size: VIRTIO_SCSI_SENSE_DEFAULT_SIZE,
            cdb_size: VIRTIO_SCSI_CDB_DEFAULT_SIZE,
        }
    }
}

impl Config {
    pub(super) fn bytes(self) -> [u8; CONFIG_LEN] {
        let mut bytes = [0; CONFIG_LEN];
        let words = [
            1,
            SEG_MAX,
            MAX_BLOCKS,
            COMMANDS_PER_UNIT,
            EVENT_INFO,
            self.sense_size,
            self.cdb_size,
            // One channel, one target.
            0,
            u32::from(MAX_UNITS) - 1,
        ];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// A size that is out of bounds is not taken: the driver reads back what it was.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(word) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else {
            return;
        };
        match offset {
            SENSE_SIZE if SENSE_SIZES.contains(&word) => self.sense_size = word,
            CDB_SIZE if CDB_SIZES.contains(&word) => self.cdb_size = word,
            _ => {}
        }
    }
}
