//! A request's header, where on the disk its data lies, and the segments that some requests have instead of data.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use super::spec::{
    Failure, HEADER_LEN, MAX_DISCARD_SECTORS, MAX_DISCARD_SEGMENTS, MAX_ZEROES_SECTORS, MAX_ZEROES_SEGMENTS,
    SECTOR, SEGMENT_LEN,
};
use crate::blunt::Check;
use crate::virtio::buffers::Part;

/// What the driver wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Read { sector: u64 },
    Write { sector: u64 },
    Flush,
    GetId,
    Discard,
    WriteZeroes,
    Unsupported,
}

/// A range of the disk, in bytes, that lies on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) len: u64,
    /// The space may be given back.
    pub(super) unmap: bool,
}

/// The segments of a request: as many of them as `count` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segments {
    ranges: [Range; MAX_DISCARD_SEGMENTS as usize],
    count: usize,
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
            VIRTIO_BLK_T_DISCARD => Self::Discard,
            VIRTIO_BLK_T_WRITE_ZEROES => Self::WriteZeroes,
            _ => Self::Unsupported,
        }
    }
}

// === impl Segments ===

impl Segments {
    /// The segments of a request to discard.
    pub(super) fn to_discard(data: Part<'_, '_>, sectors: u64) -> Result<Self, Failure> {
        // There is nothing that discarding could leave mapped: no flag has a meaning.
        Self::read(data, sectors, (MAX_DISCARD_SEGMENTS, MAX_DISCARD_SECTORS, 0))
    }

    /// The segments of a request to write zeroes.
    pub(super) fn to_zero(data: Part<'_, '_>, sectors: u64) -> Result<Self, Failure> {
        let flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
        Self::read(data, sectors, (MAX_ZEROES_SEGMENTS, MAX_ZEROES_SECTORS, flags))
    }

    /// Reads and checks all segments before anything is done about one of them.
    fn read(
        mut data: Part<'_, '_>,
        sectors: u64,
        (most, longest, flags): (u32, u32, u32),
    ) -> Result<Self, Failure> {
        let count = usize::try_from(data.len()).map_err(|_| Failure::Io)? / SEGMENT_LEN;
        if !data.len().is_multiple_of(SEGMENT_LEN as u64) || !(1..=most as usize).contains(&count) {
            return Err(Failure::Io);
        }
        let mut ranges = [Range::default(); MAX_DISCARD_SEGMENTS as usize];
        for range in &mut ranges[..count] {
            let mut segment = [0; SEGMENT_LEN];
            data.read(&mut segment);
            let [sector @ .., n0, n1, n2, n3, f0, f1, f2, f3] = segment;
            let given = u32::from_le_bytes([f0, f1, f2, f3]);
            if given & !flags != 0 {
                return Err(Failure::Unsupported);
            }
            let number = u32::from_le_bytes([n0, n1, n2, n3]);
            if number > longest {
                return Err(Failure::Io);
            }
            let len = u64::from(number) * SECTOR;
            *range = Range {
                offset: offset_on_disk(u64::from_le_bytes(sector), len, sectors)?,
                len,
                unmap: given & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0,
            };
        }
        Ok(Self { ranges, count })
    }

    /// The ranges that have a byte at all.
    pub(super) fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.ranges[..self.count].iter().filter(|range| range.len > 0)
    }
}

/// The byte at which `len` bytes from `sector` on begin, if they are whole sectors and all on the disk.
pub(super) fn offset_on_disk(sector: u64, len: u64, sectors: u64) -> Result<u64, Failure> {
    let end = sector.checked_add(len / SECTOR);
    let on_disk = end.is_some_and(|end| end <= sectors) || Check::DiskEnd.is_out();
    if len.is_multiple_of(SECTOR) && on_disk {
        sector.checked_mul(SECTOR).ok_or(Failure::Io)
    } else {
        Err(Failure::Io)
    }
}
