//! A folder's records and what stands in them: ISO 9660's numbers, in both byte orders, and Rock Ridge's fields.

use super::SECTOR;

/// 1980-01-01, in the seven bytes of a record.
const RECORD_TIME: [u8; 7] = [80, 1, 1, 0, 0, 0, 0];
/// The extension that the root's first record announces: Rock Ridge.
const ROCK_RIDGE: &[u8] = b"RRIP_1991A";

/// Where something lies.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    pub(super) sector: usize,
    pub(super) bytes: usize,
}

// === impl Extent ===

impl Extent {
    pub(super) fn sectors(self) -> usize {
        self.bytes.div_ceil(SECTOR)
    }
}

/// What the root's first record says: from where on Rock Ridge is to be looked for, and that it is Rock Ridge.
pub(super) fn announcement() -> Vec<u8> {
    let mut out = b"SP\x07\x01\xbe\xef\x00".to_vec();
    let id = u8::try_from(ROCK_RIDGE.len()).unwrap_or(0);
    out.extend([b'E', b'R', 8 + id, 1, id, 0, 0, 1]);
    out.extend(ROCK_RIDGE);
    out
}

/// Rock Ridge's NM: the name as it is.
pub(super) fn long_name(name: &str) -> Vec<u8> {
    let length = u8::try_from(5 + name.len()).unwrap_or(u8::MAX);
    let mut out = vec![b'N', b'M', length, 1, 0];
    out.extend(name.as_bytes());
    out
}

pub(super) fn file_name(place: usize) -> Vec<u8> {
    format!("{place:08}.;1").into_bytes()
}

pub(super) fn folder_name(place: usize) -> Vec<u8> {
    format!("{place:08}").into_bytes()
}

pub(super) fn record(name: &[u8], extent: Extent, flags: u8, system: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0];
    out.extend(both32(extent.sector));
    out.extend(both32(extent.bytes));
    out.extend(RECORD_TIME);
    out.extend([flags, 0, 0]);
    out.extend(both16(1));
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend(name);
    out.resize(out.len().next_multiple_of(2), 0);
    out.extend(system);
    out.resize(out.len().next_multiple_of(2), 0);
    // The bound on names keeps it below 255.
    out[0] = u8::try_from(out.len()).unwrap_or(u8::MAX);
    out
}

pub(super) fn padded(text: &str, length: usize) -> Vec<u8> {
    let mut out = text.as_bytes().to_vec();
    out.resize(length, b' ');
    out
}

/// Everything here is far below 4 GiB: see the bounds of an image.
pub(super) fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A number in both byte orders.
pub(super) fn both32(number: usize) -> Vec<u8> {
    [narrow(number).to_le_bytes(), narrow(number).to_be_bytes()].concat()
}

pub(super) fn both16(number: usize) -> Vec<u8> {
    let number = u16::try_from(number).unwrap_or(u16::MAX);
    [number.to_le_bytes(), number.to_be_bytes()].concat()
}
