//! A command descriptor block as a command (SPC-4, SBC-3): pure, and all that is known of it before a unit is asked.

use super::sense::Sense;
use super::spec::CDB_LEN;

const TEST_UNIT_READY: u8 = 0x00;
const REQUEST_SENSE: u8 = 0x03;
const READ_6: u8 = 0x08;
const WRITE_6: u8 = 0x0a;
const INQUIRY: u8 = 0x12;
const MODE_SENSE_6: u8 = 0x1a;
const START_STOP_UNIT: u8 = 0x1b;
const READ_CAPACITY_10: u8 = 0x25;
const READ_10: u8 = 0x28;
const WRITE_10: u8 = 0x2a;
const SYNCHRONIZE_CACHE_10: u8 = 0x35;
const WRITE_SAME_10: u8 = 0x41;
const UNMAP: u8 = 0x42;
const MODE_SENSE_10: u8 = 0x5a;
const READ_16: u8 = 0x88;
const WRITE_16: u8 = 0x8a;
const SYNCHRONIZE_CACHE_16: u8 = 0x91;
const WRITE_SAME_16: u8 = 0x93;
const SERVICE_ACTION_IN_16: u8 = 0x9e;
const READ_CAPACITY_16: u8 = 0x10;
const REPORT_LUNS: u8 = 0xa0;
const READ_12: u8 = 0xa8;
const WRITE_12: u8 = 0xaa;

/// Blocks of the disk, as a command names them: anything may be behind its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) lba: u64,
    pub(super) blocks: u32,
}

/// A command that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    TestUnitReady,
    RequestSense {
        room: u32,
    },
    Inquiry {
        page: Option<u8>,
        room: u32,
    },
    ReportLuns {
        select: u8,
        room: u32,
    },
    ModeSense(ModeSense),
    StartStop {
        flushes: bool,
    },
    ReadCapacity10,
    ReadCapacity16 {
        room: u32,
    },
    Read(Extent),
    /// Of which nothing may stay in a cache if `through`.
    Write {
        extent: Extent,
        through: bool,
    },
    SynchronizeCache(Extent),
    Unmap {
        len: u16,
    },
    WriteSame {
        extent: Extent,
        unmap: bool,
        has_data: bool,
    },
}

/// Which mode pages are wanted, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ModeSense {
    pub(super) is_long: bool,
    pub(super) with_descriptor: bool,
    /// 0 current, 1 what can be changed, 2 default, 3 saved.
    pub(super) control: u8,
    pub(super) page: u8,
    pub(super) subpage: u8,
    pub(super) room: u32,
}

// === impl Command ===

impl Command {
    /// Reads a CDB; what a shorter one lacks is zero.
    ///
    /// # Errors
    /// What a unit says to one that is not known, or has a field that cannot be.
    pub(super) fn parse(cdb: &[u8; CDB_LEN]) -> Result<Self, Sense> {
        // NACA, in the last byte of each length: there is no auto contingent allegiance here.
        let last = match cdb[0] >> 5 {
            0 => 5,
            1 | 2 => 9,
            4 => 15,
            5 => 11,
            _ => return Err(Sense::INVALID_OPCODE),
        };
        let command = Self::read(cdb)?;
        refuse(cdb[last] & 4 != 0)?;
        Ok(command)
    }

    fn read(cdb: &[u8; CDB_LEN]) -> Result<Self, Sense> {
        Ok(match cdb[0] {
            TEST_UNIT_READY => Self::TestUnitReady,
            REQUEST_SENSE => {
                // In descriptors: not here.
                refuse(cdb[1] & 1 != 0)?;
                Self::RequestSense { room: cdb[4].into() }
            }
            INQUIRY => {
                let has_page = cdb[1] & 1 != 0;
                refuse(cdb[1] & 2 != 0 || !has_page && cdb[2] != 0)?;
                Self::Inquiry {
                    page: has_page.then_some(cdb[2]),
                    room: word16(cdb, 3).into(),
                }
            }
            REPORT_LUNS => Self::ReportLuns {
                select: cdb[2],
                room: word32(cdb, 6),
            },
            MODE_SENSE_6 => Self::mode_sense(cdb, false, cdb[4].into()),
            MODE_SENSE_10 => Self::mode_sense(cdb, true, word16(cdb, 7).into()),
            START_STOP_UNIT => {
                // No power conditions, and nothing to eject.
                refuse(cdb[4] & 0xf2 != 0)?;
                Self::StartStop {
                    flushes: cdb[4] & 5 == 0,
                }
            }
            READ_CAPACITY_10 => {
                refuse(word32(cdb, 2) != 0 || cdb[8] & 1 != 0)?;
                Self::ReadCapacity10
            }
            SERVICE_ACTION_IN_16 if cdb[1] & 0x1f == READ_CAPACITY_16 => {
                refuse(word64(cdb, 2) != 0 || cdb[14] & 1 != 0)?;
                Self::ReadCapacity16 {
                    room: word32(cdb, 10),
                }
            }
            SERVICE_ACTION_IN_16 => return Err(Sense::INVALID_FIELD),
            UNMAP => {
                // Nothing is anchored.
                refuse(cdb[1] & 1 != 0)?;
                Self::Unmap { len: word16(cdb, 7) }
            }
            _ => return Self::on_blocks(cdb),
        })
    }

    /// What names blocks of the disk.
    fn on_blocks(cdb: &[u8; CDB_LEN]) -> Result<Self, Sense> {
        let long = Extent {
            lba: word64(cdb, 2),
            blocks: word32(cdb, 10),
        };
        let short = Extent {
            lba: word32(cdb, 2).into(),
            blocks: word16(cdb, 7).into(),
        };
        let extent = match cdb[0] {
            READ_6 | WRITE_6 => Extent {
                lba: (word32(cdb, 0) & 0x1f_ffff).into(),
                blocks: if cdb[4] == 0 { 256 } else { cdb[4].into() },
            },
            READ_12 | WRITE_12 => Extent {
                blocks: word32(cdb, 6),
                ..short
            },
            READ_16 | WRITE_16 | SYNCHRONIZE_CACHE_16 | WRITE_SAME_16 => long,
            READ_10 | WRITE_10 | SYNCHRONIZE_CACHE_10 | WRITE_SAME_10 => short,
            _ => return Err(Sense::INVALID_OPCODE),
        };
        let is_six = matches!(cdb[0], READ_6 | WRITE_6);
        let (is_protected, through) = (!is_six && cdb[1] & 0xe0 != 0, !is_six && cdb[1] & 8 != 0);
        Ok(match cdb[0] {
            SYNCHRONIZE_CACHE_10 | SYNCHRONIZE_CACHE_16 => Self::SynchronizeCache(extent),
            _ if is_protected => return Err(Sense::INVALID_FIELD),
            READ_6 | READ_10 | READ_12 | READ_16 => Self::Read(extent),
            WRITE_6 | WRITE_10 | WRITE_12 | WRITE_16 => Self::Write { extent, through },
            _ => {
                let without_data = cdb[1] & 1 != 0;
                // Nothing is anchored, no block differs from the others, and ten bytes have no word for "no data".
                refuse(cdb[1] & 0x16 != 0 || without_data && cdb[0] == WRITE_SAME_10)?;
                Self::WriteSame {
                    extent,
                    unmap: cdb[1] & 8 != 0,
                    has_data: !without_data,
                }
            }
        })
    }

    fn mode_sense(cdb: &[u8; CDB_LEN], is_long: bool, room: u32) -> Self {
        Self::ModeSense(ModeSense {
            is_long,
            with_descriptor: cdb[1] & 8 == 0,
            control: cdb[2] >> 6,
            page: cdb[2] & 0x3f,
            subpage: cdb[3],
            room,
        })
    }

    /// Whether it has to do with what is on the disk, and so with its limits.
    pub(super) fn is_io(self) -> bool {
        match self {
            Self::Read(_)
            | Self::Write { .. }
            | Self::SynchronizeCache(_)
            | Self::Unmap { .. }
            | Self::WriteSame { .. } => true,
            Self::StartStop { flushes } => flushes,
            _ => false,
        }
    }

    /// Whether it is answered even where a unit has something to say that nobody has heard yet (SAM-5, 5.14).
    pub(super) fn passes_attention(self) -> bool {
        matches!(
            self,
            Self::Inquiry { .. } | Self::ReportLuns { .. } | Self::RequestSense { .. }
        )
    }
}

fn refuse(is_wrong: bool) -> Result<(), Sense> {
    if is_wrong {
        Err(Sense::INVALID_FIELD)
    } else {
        Ok(())
    }
}

fn word16(cdb: &[u8; CDB_LEN], at: usize) -> u16 {
    u16::from_be_bytes([cdb[at], cdb[at + 1]])
}

fn word32(cdb: &[u8; CDB_LEN], at: usize) -> u32 {
    u32::from_be_bytes([cdb[at], cdb[at + 1], cdb[at + 2], cdb[at + 3]])
}

fn word64(cdb: &[u8; CDB_LEN], at: usize) -> u64 {
    u64::from(word32(cdb, at)) << 32 | u64::from(word32(cdb, at + 4))
}
