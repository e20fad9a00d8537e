//! A bank of NOR flash with Intel's command set, as on QEMU's `virt`: where EDK2 keeps its variables.
//!
//! Two 16-bit chips side by side make a 32-bit bank: a command goes to both at once (`0x0070_0070`), and each answers in
//! its half. Blocks have 256 KiB, 128 KiB of each chip.
//!
//! ```text
//!   array ──(70)──► status          20 d0   erase a block        60 01 | 60 d0   lock, unlock a block
//!     ▲    (90)──► identity         40 w    program a word       e8 n w… d0      program up to 1024 words
//!     └─ff─(98)──► CFI query        50      clear the status
//! ```
//!
//! In array mode the guest may read the bank's bytes without us: [`FlashArray::show`] tells when. Programming only clears
//! bits; erasing sets them. The guest is hostile: a sequence that is none ends in an error in the status register, and a
//! buffer never leaves its block.

use std::ops::Range;

use crate::BusDevice;

/// Bytes of a block, of both chips together.
pub const BLOCK: u64 = 256 << 10;
/// Bytes of a word: what a command is written in.
const WORD: u64 = 4;
/// Most words of one buffered program.
const BUFFER_WORDS: usize = 1024;

const READY: u8 = 0x80;
const ERASE_FAILED: u8 = 0x20;
const PROGRAM_FAILED: u8 = 0x10;
const SEQUENCE_FAILED: u8 = ERASE_FAILED | PROGRAM_FAILED;
const LOCKED: u8 = 0x02;

const CONFIRM: u8 = 0xd0;

/// Maker, device: Intel, 128 Mbit.
const IDENTITY: [u16; 2] = [0x0089, 0x0018];
/// In each block, the word behind the identity tells whether it is locked.
const LOCK_WORD: u64 = 2;

/// What the query tells, from word 0x10 on (JEDEC JESD68): command set, voltages, times, geometry.
const QUERY: Range<u64> = 0x10..0x31;
const QUERY_TABLE: [u8; 0x21] = [
    b'Q', b'R', b'Y', 0x01, 0x00, 0x31, 0x00, 0x00, 0x00, 0x00, 0x00, // Intel's set; its table at 0x31
    0x45, 0x55, 0x00, 0x00, // supply, no programming voltage
    0x07, 0x07, 0x0a, 0x00, 0x04, 0x04, 0x04, 0x00, // times
    0x18, 0x02, 0x00, 0x0b, 0x00, // 2^24 bytes, 16 bits wide, buffers of 2^11 bytes
    0x01, 0x7f, 0x00, 0x00, 0x02, // one region: 128 blocks of 512 × 256 bytes
];
/// Intel's own table: "PRI", version 1.0, nothing optional.
const EXTENDED: Range<u64> = 0x31..0x3f;
const EXTENDED_TABLE: [u8; 14] = [b'P', b'R', b'I', b'1', b'0', 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The bytes of a bank, wherever they are kept.
pub trait FlashArray: Send {
    /// How many there are; a multiple of [`BLOCK`].
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads; the range lies in the array.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Writes for good; the range lies in the array. False where it could not be kept.
    fn write(&mut self, offset: u64, data: &[u8]) -> bool;

    /// Whether the guest may read the bytes by itself from now on. Called on changes only.
    fn show(&mut self, shown: bool);
}

/// The bank.
pub struct Flash {
    array: Box<dyn FlashArray>,
    mode: Mode,
    sequence: Sequence,
    status: u8,
    locked: Vec<bool>,
    shown: bool,
}

/// What a read gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Array,
    Status,
    Identity,
    Query,
}

/// What the next write is.
#[derive(Debug)]
enum Sequence {
    Command,
    Program,
    Erase,
    Lock,
    /// The number of words, less one.
    Count,
    /// One of the words that are still to come for this block.
    Words {
        left: usize,
        block: u64,
        words: Vec<(u64, [u8; 4])>,
    },
}

// === impl Flash ===

impl Flash {
    /// A bank in array mode, without locked blocks.
    pub fn new(mut array: Box<dyn FlashArray>) -> Self {
        array.show(true);
        let blocks = usize::try_from(array.len() / BLOCK).unwrap_or(0);
        Self {
            array,
            mode: Mode::Array,
            sequence: Sequence::Command,
            status: READY,
            locked: vec![false; blocks],
            shown: true,
        }
    }

    fn block(offset: u64) -> usize {
        usize::try_from(offset / BLOCK).unwrap_or(usize::MAX)
    }

    fn is_locked(&self, offset: u64) -> bool {
        self.locked.get(Self::block(offset)).copied().unwrap_or(true)
    }

    /// What both chips answer at a word.
    fn answer(&self, word: u64) -> u16 {
        let table = |table: &[u8], from: u64| {
            let at = usize::try_from(word - from).ok();
            at.and_then(|at| table.get(at)).copied().map_or(0, u16::from)
        };
        match self.mode {
            Mode::Array | Mode::Status => self.status.into(),
            Mode::Identity => match word % (BLOCK / WORD) {
                LOCK_WORD => self.is_locked(word * WORD).into(),
                other => usize::try_from(other)
                    .ok()
                    .and_then(|at| IDENTITY.get(at))
                    .copied()
                    .unwrap_or(0),
            },
            Mode::Query if QUERY.contains(&word) => table(&QUERY_TABLE, QUERY.start),
            Mode::Query if EXTENDED.contains(&word) => table(&EXTENDED_TABLE, EXTENDED.start),
            Mode::Query => 0,
        }
    }

    fn command(&mut self, command: u8) {
        match command {
            0xff | 0xf0 => self.mode = Mode::Array,
            0x70 => self.mode = Mode::Status,
            0x90 => self.mode = Mode::Identity,
            0x98 => self.mode = Mode::Query,
            0x50 => self.status = READY,
            0x10 | 0x40 => self.begin(Sequence::Program),
            0x20 => self.begin(Sequence::Erase),
            0x60 => self.begin(Sequence::Lock),
            0xe8 => self.begin(Sequence::Count),
            _ => {}
        }
    }

    /// While something is done, reads give the status.
    fn begin(&mut self, sequence: Sequence) {
        self.mode = Mode::Status;
        self.sequence = sequence;
    }

    /// Clears the bits that are zero in `data`, unless the block is locked.
    fn program(&mut self, offset: u64, data: [u8; 4]) {
        if self.is_locked(offset) {
            self.status |= PROGRAM_FAILED | LOCKED;
            return;
        }
        let mut bytes = [0; 4];
        self.array.read(offset, &mut bytes);
        for (byte, new) in bytes.iter_mut().zip(data) {
            *byte &= new;
        }
        if !self.array.write(offset, &bytes) {
            self.status |= PROGRAM_FAILED;
        }
    }

    fn erase(&mut self, offset: u64) {
        if self.is_locked(offset) {
            self.status |= ERASE_FAILED | LOCKED;
            return;
        }
        let ones = vec![0xff; usize::try_from(BLOCK).unwrap_or(0)];
        if !self.array.write(offset - offset % BLOCK, &ones) {
            self.status |= ERASE_FAILED;
        }
    }

    fn lock(&mut self, offset: u64, command: u8) {
        let block = self.locked.get_mut(Self::block(offset));
        match (block, command) {
            (Some(block), 0x01) => *block = true,
            (Some(block), CONFIRM) => *block = false,
            // Lock-down and the protection registers are not there.
            _ => self.status |= SEQUENCE_FAILED,
        }
    }

    fn write_word(&mut self, offset: u64, data: [u8; 4]) {
        let [command, high, ..] = data;
        match std::mem::replace(&mut self.sequence, Sequence::Command) {
            Sequence::Command => self.command(command),
            Sequence::Program => self.program(offset, data),
            Sequence::Erase if command == CONFIRM => self.erase(offset),
            Sequence::Erase => self.status |= SEQUENCE_FAILED,
            Sequence::Lock => self.lock(offset, command),
            Sequence::Count => {
                let left = usize::from(u16::from_le_bytes([command, high])) + 1;
                if left > BUFFER_WORDS {
                    self.status |= SEQUENCE_FAILED;
                    return;
                }
                let block = offset - offset % BLOCK;
                self.sequence = Sequence::Words {
                    left,
                    block,
                    words: Vec::new(),
                };
            }
            Sequence::Words { left: 0, words, .. } if command == CONFIRM => {
                words
                    .into_iter()
                    .for_each(|(offset, data)| self.program(offset, data));
            }
            Sequence::Words {
                left,
                block,
                mut words,
            } => {
                if left == 0 || offset - offset % BLOCK != block {
                    self.status |= SEQUENCE_FAILED;
                    return;
                }
                words.push((offset, data));
                self.sequence = Sequence::Words {
                    left: left - 1,
                    block,
                    words,
                };
            }
        }
    }

    fn lies_inside(&self, offset: u64, len: usize) -> bool {
        let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len));
        end.is_some_and(|end| end <= self.array.len())
    }
}

impl BusDevice for Flash {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if !self.lies_inside(offset, data.len()) {
            data.fill(0xff);
        } else if self.mode == Mode::Array {
            self.array.read(offset, data);
        } else {
            for (byte, at) in data.iter_mut().zip(offset..) {
                let [low, high] = self.answer(at / WORD).to_le_bytes();
                *byte = if at.is_multiple_of(2) { low } else { high };
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Ok(&word) = <&[u8; 4]>::try_from(data)
            && offset.is_multiple_of(WORD)
            && self.lies_inside(offset, data.len())
        {
            self.write_word(offset, word);
            let shown = self.mode == Mode::Array;
            if shown != self.shown {
                self.shown = shown;
                self.array.show(shown);
            }
        }
    }
}

#[cfg(test)]
mod tests;
