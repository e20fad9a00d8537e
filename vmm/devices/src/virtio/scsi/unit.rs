//! A logical unit: a disk that speaks SCSI (SBC-3), on the medium that every disk has.
//!
//! A command is checked as a whole before the medium sees it: one that reaches behind the disk's end, or one of whose
//! descriptors does, changes nothing.

use vm_memory::VolatileSlice;

use super::command::{Command, Extent};
use super::pages::Identity;
use super::sense::Sense;
use super::spec::{BLOCK, MAX_BLOCKS, MAX_SAME_BLOCKS, MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS};
use crate::blunt::Check;
use crate::virtio::buffers::Part;
use crate::virtio::medium::{Alarm, BlockBackend, Cache, Failed, Limits, Medium, OnError, Trouble};

/// Header and one descriptor of UNMAP's parameters.
const UNMAP_HEADER: usize = 8;
const UNMAP_DESCRIPTOR: usize = 16;

/// A pattern that is not all zero is written from a buffer of this length, again and again.
const PATTERN: usize = 64 << 10;

/// What a unit tells of itself, and how it is cached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitOptions {
    /// The driver may only read.
    pub read_only: bool,
    /// What the driver gets as its serial, cut at [`super::MAX_SERIAL`] bytes; none if empty.
    pub serial: String,
    /// How writes are cached.
    pub cache: Cache,
}

/// A disk.
pub struct Unit {
    medium: Medium,
    identity: Identity,
    /// What it has to say before it does anything else.
    attention: Option<Sense>,
    /// How often units had come and gone when it last said so.
    changes: u32,
}

/// What came of a command.
#[derive(Debug)]
pub(super) enum Done {
    /// It is done; so many bytes went to the driver, or came from it.
    Good { sent: u64, taken: u64 },
    /// It is not, and why.
    Check(Sense),
    /// The driver's buffers are shorter than what its command says of them.
    Overrun,
}

/// Why a command is not done.
#[derive(Debug)]
pub(super) enum Refusal {
    Check(Sense),
    Overrun,
}

// === impl Unit ===

impl Unit {
    /// A disk that has just been switched on.
    pub fn new(backend: Box<dyn BlockBackend>, options: &UnitOptions) -> Self {
        let mut medium = Medium::new(backend, options.cache);
        medium.set_write_back(medium.is_cached());
        let identity = Identity {
            serial: options.serial.clone(),
            read_only: options.read_only,
            is_cached: medium.is_cached(),
            blocks: medium.size() / u64::from(BLOCK),
            geometry: medium.geometry(),
        };
        Self {
            medium,
            identity,
            attention: Some(Sense::RESET),
            changes: 0,
        }
    }

    /// Has this done where the back end fails. After [`Trouble::tell`], the request queue is to be run when it may be better.
    #[must_use]
    pub fn failing(mut self, on_error: OnError, trouble: Box<dyn Trouble>) -> Self {
        self.medium.set_on_error(on_error, trouble);
        self
    }

    /// Keeps the disk to these limits. After [`Alarm::ring_at`], the request queue is to be run.
    #[must_use]
    pub fn limited(mut self, limits: Limits, alarm: Box<dyn Alarm>) -> Self {
        self.medium.set_limits(limits, alarm);
        self
    }

    pub(super) fn medium(&mut self) -> &mut Medium {
        &mut self.medium
    }

    /// It was reset, and says so.
    pub(super) fn reset(&mut self) {
        self.attention = Some(Sense::RESET);
    }

    /// It knows of so many changes of the units, and says nothing of them.
    pub(super) fn has_heard(&mut self, changes: u32) {
        self.changes = changes;
    }

    /// What it has to say first, if that is anything; it is said once. A reset comes before the news of other units.
    pub(super) fn take_attention(&mut self, changes: u32) -> Option<Sense> {
        self.attention.take().or_else(|| {
            let is_news = self.changes != changes;
            self.changes = changes;
            is_news.then_some(Sense::UNITS_CHANGED)
        })
    }

    /// Does what a command says, with data from and to these buffers.
    pub(super) fn serve(&mut self, command: Command, from: &mut Part<'_, '_>, to: &mut Part<'_, '_>) -> Done {
        match self.execute(command, from, to) {
            Ok(done) => done,
            Err(Refusal::Check(sense)) => Done::Check(sense),
            Err(Refusal::Overrun) => Done::Overrun,
        }
    }

    fn execute(
        &mut self,
        command: Command,
        from: &mut Part<'_, '_>,
        to: &mut Part<'_, '_>,
    ) -> Result<Done, Refusal> {
        Ok(match command {
            Command::TestUnitReady => Done::NOTHING,
            // The attention that there was has been taken by whoever asks.
            Command::RequestSense { room } => answer(to, &Sense::NONE.bytes(), room),
            Command::Inquiry { page, room } => answer(to, &self.identity.inquiry(page)?, room),
            // The target's to answer.
            Command::ReportLuns { .. } => return Err(Sense::INVALID_OPCODE.into()),
            Command::ModeSense(wanted) => answer(to, &self.identity.mode(wanted)?, wanted.room),
            Command::ReadCapacity10 => answer(to, &self.identity.capacity_10(), u32::MAX),
            Command::ReadCapacity16 { room } => answer(to, &self.identity.capacity_16(), room),
            Command::StartStop { flushes: false } => Done::NOTHING,
            Command::StartStop { flushes: true } => self.flush()?,
            Command::SynchronizeCache(extent) => {
                self.range(extent)?;
                self.flush()?
            }
            Command::Read(extent) => self.read(extent, to)?,
            Command::Write { extent, through } => self.write(extent, through, from)?,
            Command::Unmap { len } => self.unmap(len, from)?,
            Command::WriteSame {
                extent,
                unmap,
                has_data,
            } => self.write_same(extent, unmap, has_data, from)?,
        })
    }

    fn read(&mut self, extent: Extent, to: &mut Part<'_, '_>) -> Result<Done, Refusal> {
        let (offset, len) = self.range(bounded(extent, MAX_BLOCKS)?)?;
        let buffers = exactly(to, len)?;
        let done = self.medium.read(offset, &buffers);
        done.map_err(|_| Sense::READ_ERROR)?;
        Ok(Done::Good { sent: len, taken: 0 })
    }

    fn write(&mut self, extent: Extent, through: bool, from: &mut Part<'_, '_>) -> Result<Done, Refusal> {
        let (offset, len) = self.range_to_write(bounded(extent, MAX_BLOCKS)?)?;
        let buffers = exactly(from, len)?;
        self.medium.write(offset, &buffers)?;
        if through {
            self.medium.flush()?;
        }
        Ok(Done::Good { sent: 0, taken: len })
    }

    fn flush(&mut self) -> Result<Done, Refusal> {
        self.medium.flush()?;
        Ok(Done::NOTHING)
    }

    /// Gives back what the descriptors in its data name.
    fn unmap(&mut self, len: u16, from: &mut Part<'_, '_>) -> Result<Done, Refusal> {
        let mut ranges = Vec::new();
        if len > 0 {
            if usize::from(len) < UNMAP_HEADER {
                return Err(Sense::PARAMETER_LENGTH.into());
            }
            if from.len() < len.into() {
                return Err(Refusal::Overrun);
            }
            let mut header = [0; UNMAP_HEADER];
            from.read(&mut header);
            let described = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let count = described.min(usize::from(len) - UNMAP_HEADER) / UNMAP_DESCRIPTOR;
            if count > MAX_UNMAP_DESCRIPTORS {
                return Err(Sense::INVALID_PARAMETER.into());
            }
            let mut left = MAX_UNMAP_BLOCKS;
            for _ in 0..count {
                let extent = described_by(from);
                left = left.checked_sub(extent.blocks).ok_or(Sense::INVALID_PARAMETER)?;
                ranges.push(self.range_to_write(extent)?);
            }
        }
        if self.identity.read_only {
            return Err(Sense::WRITE_PROTECTED.into());
        }
        for (offset, len) in ranges.into_iter().filter(|(_, len)| *len > 0) {
            self.medium.discard(offset, len)?;
        }
        Ok(Done::Good {
            sent: 0,
            taken: len.into(),
        })
    }

    /// Writes the same block again and again; zeroes if there is none.
    fn write_same(
        &mut self,
        extent: Extent,
        unmap: bool,
        has_data: bool,
        from: &mut Part<'_, '_>,
    ) -> Result<Done, Refusal> {
        if extent.blocks == 0 {
            return Err(Sense::INVALID_FIELD.into());
        }
        let (offset, len) = self.range_to_write(bounded(extent, MAX_SAME_BLOCKS)?)?;
        let mut block = [0; BLOCK as usize];
        if has_data && from.read(&mut block) < block.len() {
            return Err(Refusal::Overrun);
        }
        if block.iter().all(|byte| *byte == 0) {
            self.medium.write_zeroes(offset, len, unmap)?;
            self.medium.write_through()?;
        } else {
            self.write_again_and_again(&block, offset, len)?;
        }
        Ok(Done::Good {
            sent: 0,
            taken: if has_data { BLOCK.into() } else { 0 },
        })
    }

    /// One write, all of whose buffers are the same one.
    fn write_again_and_again(&mut self, block: &[u8], offset: u64, len: u64) -> Result<(), Refusal> {
        let mut pattern = block.repeat(PATTERN / block.len());
        let whole = VolatileSlice::from(&mut pattern[..]);
        let len = usize::try_from(len).map_err(|_| Sense::INVALID_FIELD)?;
        let mut buffers = vec![whole; len / PATTERN];
        buffers.extend(
            whole
                .subslice(0, len % PATTERN)
                .ok()
                .filter(|rest| !rest.is_empty()),
        );
        Ok(self.medium.write(offset, &buffers)?)
    }

    /// Where on the disk an extent is, and how long, in bytes.
    fn range(&self, extent: Extent) -> Result<(u64, u64), Refusal> {
        let end = extent.lba.checked_add(extent.blocks.into());
        let lies_on_disk = end.is_some_and(|end| end <= self.identity.blocks);
        if lies_on_disk || Check::DiskEnd.is_out() {
            let block = u64::from(BLOCK);
            Ok((extent.lba.saturating_mul(block), u64::from(extent.blocks) * block))
        } else {
            Err(Sense::OUT_OF_RANGE.into())
        }
    }

    fn range_to_write(&self, extent: Extent) -> Result<(u64, u64), Refusal> {
        if self.identity.read_only {
            return Err(Sense::WRITE_PROTECTED.into());
        }
        self.range(extent)
    }
}

// === impl Done ===

impl Done {
    pub(super) const NOTHING: Self = Self::Good { sent: 0, taken: 0 };
}

// === impl Refusal ===

impl From<Sense> for Refusal {
    fn from(sense: Sense) -> Self {
        Self::Check(sense)
    }
}

/// Of everything but a read.
impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        Self::Check(if failed.no_space {
            Sense::NO_SPACE
        } else {
            Sense::WRITE_ERROR
        })
    }
}

/// Sends as much of an answer as the command has room for.
pub(super) fn answer(to: &mut Part<'_, '_>, bytes: &[u8], room: u32) -> Done {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let bytes = &bytes[..bytes.len().min(room)];
    if to.len() < bytes.len() as u64 {
        return Done::Overrun;
    }
    let sent = to.write(bytes) as u64;
    Done::Good { sent, taken: 0 }
}

/// Buffers of exactly this length.
fn exactly<'m>(part: &mut Part<'_, 'm>, len: u64) -> Result<Vec<VolatileSlice<'m>>, Refusal> {
    let wanted = usize::try_from(len).map_err(|_| Refusal::Overrun)?;
    if part.len() < len {
        return Err(Refusal::Overrun);
    }
    Ok(part.take(wanted))
}

fn bounded(extent: Extent, most: u32) -> Result<Extent, Refusal> {
    if extent.blocks > most {
        return Err(Sense::INVALID_FIELD.into());
    }
    Ok(extent)
}

/// The next descriptor of UNMAP's data, which has been seen to be there.
fn described_by(from: &mut Part<'_, '_>) -> Extent {
    let mut bytes = [0; UNMAP_DESCRIPTOR];
    from.read(&mut bytes);
    let [l0, l1, l2, l3, l4, l5, l6, l7, b0, b1, b2, b3, ..] = bytes;
    Extent {
        lba: u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7]),
        blocks: u32::from_be_bytes([b0, b1, b2, b3]),
    }
}
