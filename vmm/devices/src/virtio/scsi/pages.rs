//! What a unit tells of itself: INQUIRY and its pages (SPC-4, 6.4 and 7.8), its size (SBC-3, 5.16), its mode pages.
//!
//! The names are those of QEMU's disks, so that a guest finds one machine under both backends, and a user the links in
//! `/dev/disk/by-id` that KubeVirt's users know.

use super::command::ModeSense;
use super::sense::Sense;
use super::spec::{
    BLOCK, MAX_BLOCKS, MAX_SAME_BLOCKS, MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS, OPTIMAL_BLOCKS,
};
use crate::virtio::medium::Geometry;

const VENDOR: &[u8; 8] = b"QEMU    ";
const PRODUCT: &[u8; 16] = b"QEMU HARDDISK   ";
const REVISION: &[u8; 4] = b"2.5+";

/// Longest serial that is told.
pub const MAX_SERIAL: usize = 36;

/// Vital product data, by their page.
const SUPPORTED: u8 = 0x00;
const SERIAL: u8 = 0x80;
const IDENTIFICATION: u8 = 0x83;
const BLOCK_LIMITS: u8 = 0xb0;
const CHARACTERISTICS: u8 = 0xb1;
const PROVISIONING: u8 = 0xb2;

/// Mode pages.
const CACHING: u8 = 0x08;
const ALL: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;

/// A peripheral qualifier and type that say: there could be a unit, and there is none.
const ABSENT: u8 = 0x7f;

/// What is told of a unit.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) serial: String,
    pub(super) read_only: bool,
    pub(super) is_cached: bool,
    pub(super) blocks: u64,
    pub(super) geometry: Geometry,
}

/// What INQUIRY says where there is no unit.
pub(super) fn nobody() -> Vec<u8> {
    let mut bytes = inquiry();
    bytes[0] = ABSENT;
    bytes
}

fn inquiry() -> Vec<u8> {
    // SPC-3, answers of format 2, hierarchical LUNs; 31 bytes follow the first five; commands are queued.
    let mut bytes = vec![0, 0, 5, 0x12, 31, 0, 0, 0x12];
    bytes.extend_from_slice(VENDOR);
    bytes.extend_from_slice(PRODUCT);
    bytes.extend_from_slice(REVISION);
    bytes
}

/// The list of units (SPC-4, 6.33). Those that are well known are none.
pub(super) fn units(select: u8, luns: &[u8]) -> Result<Vec<u8>, Sense> {
    let luns = match select {
        0 | 2 => luns,
        1 => &[],
        _ => return Err(Sense::INVALID_FIELD),
    };
    let len = u32::try_from(luns.len() * 8).unwrap_or(u32::MAX);
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0; 4]);
    luns.iter()
        .for_each(|&lun| bytes.extend_from_slice(&[0, lun, 0, 0, 0, 0, 0, 0]));
    Ok(bytes)
}

// === impl Identity ===

impl Identity {
    /// The standard data, or a page.
    pub(super) fn inquiry(&self, page: Option<u8>) -> Result<Vec<u8>, Sense> {
        let Some(page) = page else {
            return Ok(inquiry());
        };
        let body = match page {
            SUPPORTED if self.serial.is_empty() => vec![
                SUPPORTED,
                IDENTIFICATION,
                BLOCK_LIMITS,
                CHARACTERISTICS,
                PROVISIONING,
            ],
            SUPPORTED => vec![
                SUPPORTED,
                SERIAL,
                IDENTIFICATION,
                BLOCK_LIMITS,
                CHARACTERISTICS,
                PROVISIONING,
            ],
            SERIAL if !self.serial.is_empty() => self.serial().to_vec(),
            IDENTIFICATION => self.identification(),
            BLOCK_LIMITS => self.limits(),
            // No medium that turns.
            CHARACTERISTICS => [&[0, 1][..], &[0; 58]].concat(),
            // UNMAP and both WRITE SAME give space back, where a disk can be written: it is thin then.
            PROVISIONING if self.read_only => vec![0, 0, 0, 0],
            PROVISIONING => vec![0, 0xe0, 2, 0],
            _ => return Err(Sense::INVALID_FIELD),
        };
        let len = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let mut bytes = vec![0, page];
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend(body);
        Ok(bytes)
    }

    fn serial(&self) -> &[u8] {
        let bytes = self.serial.as_bytes();
        &bytes[..bytes.len().min(MAX_SERIAL)]
    }

    /// One designator, of ASCII and of the vendor's own making; none without a serial, as nothing else tells disks apart.
    fn identification(&self) -> Vec<u8> {
        match self.serial() {
            [] => Vec::new(),
            serial => [&[2, 0, 0, u8::try_from(serial.len()).unwrap_or(u8::MAX)], serial].concat(),
        }
    }

    fn limits(&self) -> Vec<u8> {
        let blocks = |bytes: u32| (bytes / BLOCK).max(1);
        let physical = blocks(self.geometry.physical_block);
        let (unmap_blocks, descriptors, granularity) = if self.read_only {
            (0, 0, 0)
        } else {
            let descriptors = u32::try_from(MAX_UNMAP_DESCRIPTORS).unwrap_or(u32::MAX);
            (MAX_UNMAP_BLOCKS, descriptors, blocks(self.geometry.discard))
        };
        // WRITE SAME of no blocks is none.
        let mut bytes = vec![1, 0];
        bytes.extend_from_slice(&u16::try_from(physical).unwrap_or(1).to_be_bytes());
        for word in [
            MAX_BLOCKS,
            OPTIMAL_BLOCKS,
            0,
            unmap_blocks,
            descriptors,
            granularity,
            0,
        ] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend_from_slice(&u64::from(MAX_SAME_BLOCKS).to_be_bytes());
        bytes.resize(60, 0);
        bytes
    }

    /// Last block and block length; a disk that has more blocks says so, and is asked for more.
    pub(super) fn capacity_10(&self) -> Vec<u8> {
        let last = u32::try_from(self.blocks.saturating_sub(1)).unwrap_or(u32::MAX);
        [last.to_be_bytes(), BLOCK.to_be_bytes()].concat()
    }

    pub(super) fn capacity_16(&self) -> Vec<u8> {
        let mut bytes = self.blocks.saturating_sub(1).to_be_bytes().to_vec();
        bytes.extend_from_slice(&BLOCK.to_be_bytes());
        let physical = (self.geometry.physical_block / BLOCK).max(1).ilog2();
        // What was given back reads as anything.
        let thin = if self.read_only { 0 } else { 0x80 };
        bytes.extend_from_slice(&[0, physical.to_le_bytes()[0], thin]);
        bytes.resize(32, 0);
        bytes
    }

    /// A header, a block descriptor if it is wanted, and the one page.
    pub(super) fn mode(&self, wanted: ModeSense) -> Result<Vec<u8>, Sense> {
        let is_known = matches!(wanted.page, CACHING | ALL) && matches!(wanted.subpage, 0 | ALL_SUBPAGES);
        if !is_known {
            return Err(Sense::INVALID_FIELD);
        }
        let mut page = [0; 20];
        (page[0], page[1]) = (CACHING, 18);
        match wanted.control {
            3 => return Err(Sense::NOTHING_SAVED),
            // Nothing can be changed.
            1 => {}
            _ => page[2] = if self.is_cached { 4 } else { 0 },
        }
        let descriptor = if wanted.with_descriptor {
            let blocks = u32::try_from(self.blocks).unwrap_or(u32::MAX);
            [blocks.to_be_bytes(), BLOCK.to_be_bytes()].concat()
        } else {
            Vec::new()
        };
        // Read-only; what has to be on the disk at once can be said of a write.
        let specific = if self.read_only { 0x90 } else { 0x10 };
        let after = |header: usize| u8::try_from(header + descriptor.len() + page.len() - 1);
        let described = u8::try_from(descriptor.len()).unwrap_or(0);
        let header = if wanted.is_long {
            vec![0, after(8).unwrap_or(0) - 1, 0, specific, 0, 0, 0, described]
        } else {
            vec![after(4).unwrap_or(0), 0, specific, described]
        };
        Ok([header, descriptor, page.to_vec()].concat())
    }
}
