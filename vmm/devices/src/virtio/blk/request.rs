//! A request's header, and where on the disk its data lies.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};

use super::spec::{Failure, HEADER_LEN, SECTOR};

/// What the driver wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Read { sector: u64 },
    Write { sector: u64 },
    Flush,
    GetId,
    Unsupported,
}

// === impl Request ===

impl Request {
    /// Reads type, (reserved) and sector.
    pub(super) fn parse(header: [u8; HEADER_LEN]) -> Self {
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([t0, t1, t2, t3]) {
            VIRTIO_BLK_T_IN => Self::Read { sector },
            VIRTIO_BLK_T_OUT => Self::Write { sector },
            VIRTIO_BLK_T_FLUSH => Self::Flush,
            VIRTIO_BLK_T_GET_ID => Self::GetId,
            _ => Self::Unsupported,
        }
    }
}

/// The byte at which `len` bytes from `sector` on begin, if they are whole sectors and all on the disk.
pub(super) fn offset_on_disk(sector: u64, len: u64, sectors: u64) -> Result<u64, Failure> {
    let end = sector.checked_add(len / SECTOR);
    if len.is_multiple_of(SECTOR) && end.is_some_and(|end| end <= sectors) {
        sector.checked_mul(SECTOR).ok_or(Failure::Io)
    } else {
        Err(Failure::Io)
    }
}
