//! The platform-level interrupt controller, for hosts whose KVM has no AIA.
//!
//! SiFive's register map with one context a hart, its supervisor one, in the order of the harts; the device tree
//! says so with `interrupts-extended = <&cpu0 9 &cpu1 9 …>`.
//!
//! ```text
//!   PlicSource::trigger ─► pending ─┐             ┌─► LevelLine::set(true) of the hart
//!        (latched edge)             ├─ priority > ┤      KVM_INTERRUPT
//!   PlicSource::set ─► high ────────┤  threshold  └─► claim: pending → claimed ─► complete: claimed → idle
//!              enabled for the hart ┘
//! ```
//!
//! A source that is claimed is not offered again before it is completed; an edge that comes in between stays
//! pending, so none is lost. A source whose level is high is pending, and is so again after every completion.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{BusDevice, IrqLine, LevelLine};

/// Sources are numbered from 1 to at most this; the register map has room for no more.
pub const MAX_SOURCES: u32 = 1023;
/// The register map has room for this many harts in a window of [`WINDOW`] bytes.
pub const MAX_HARTS: usize = 1024;
/// Length of the register window.
pub const WINDOW: u64 = 0x60_0000;

/// Priorities are three bits, as on QEMU's `virt`.
const MAX_PRIORITY: u32 = 7;
const WORDS: usize = 32;

const PRIORITY: Range<u64> = 0..0x1000;
const PENDING: Range<u64> = 0x1000..0x1080;
const ENABLE: Range<u64> = 0x2000..0x20_0000;
const ENABLE_STRIDE: u64 = 0x80;
const CONTEXT: Range<u64> = 0x20_0000..WINDOW;
const CONTEXT_STRIDE: u64 = 0x1000;
const THRESHOLD: u64 = 0;
const CLAIM: u64 = 4;

/// The controller. Usually shared as `Arc<Mutex<Plic>>` between the bus and its [`PlicSource`]s.
pub struct Plic {
    sources: u32,
    priority: Vec<u32>,
    /// Latched edges.
    pending: Sources,
    /// Levels.
    high: Sources,
    claimed: Sources,
    harts: Vec<Hart>,
}

/// One source as devices see it.
pub struct PlicSource {
    plic: Arc<Mutex<Plic>>,
    source: u32,
}

struct Hart {
    enabled: Sources,
    threshold: u32,
    high: bool,
    output: Arc<dyn LevelLine>,
}

/// A bit for every source, as the registers have it.
type Sources = [u32; WORDS];

/// Where an access lands.
enum Register {
    Priority(u32),
    Pending(usize),
    Enable(usize, usize),
    Threshold(usize),
    Claim(usize),
}

// === impl Plic ===

impl Plic {
    /// A controller with sources 1 to `sources` (at most [`MAX_SOURCES`]) and one context for each output (at most
    /// [`MAX_HARTS`] can be reached by the guest).
    pub fn new(sources: u32, outputs: Vec<Arc<dyn LevelLine>>) -> Self {
        let sources = sources.min(MAX_SOURCES);
        let hart = |output| Hart {
            enabled: [0; WORDS],
            threshold: 0,
            high: false,
            output,
        };
        Self {
            sources,
            priority: vec![0; WORDS * 32],
            pending: [0; WORDS],
            high: [0; WORDS],
            claimed: [0; WORDS],
            harts: outputs.into_iter().map(hart).collect(),
        }
    }

    /// Latches an edge of a source; one that does not exist is ignored.
    pub fn trigger(&mut self, source: u32) {
        if (1..=self.sources).contains(&source) {
            // A hart that was stopped and started (SBI HSM) has forgotten its line, and nobody tells us.
            self.harts
                .iter()
                .filter(|hart| hart.high)
                .for_each(|hart| hart.output.set(true));
            set(&mut self.pending, source, true);
            self.update();
        }
    }

    /// Raises or lowers the level of a source; one that does not exist is ignored.
    pub fn set_level(&mut self, source: u32, high: bool) {
        if (1..=self.sources).contains(&source) {
            set(&mut self.high, source, high);
            self.update();
        }
    }

    /// Back to the state after power-on, as when the guest is reset; levels are their drivers'.
    pub fn reset(&mut self) {
        self.priority.fill(0);
        self.pending = [0; WORDS];
        self.claimed = [0; WORDS];
        for hart in &mut self.harts {
            hart.enabled = [0; WORDS];
            hart.threshold = 0;
        }
        self.update();
    }

    /// The source with the highest priority above `floor` that waits for this hart; the lowest number wins a tie.
    fn best(&self, hart: &Hart, floor: u32) -> Option<u32> {
        let mut best = None;
        let mut floor = floor;
        for (word, base) in (0..WORDS).zip((0..=self.sources).step_by(32)) {
            let mut bits = self.waiting(word) & hart.enabled[word];
            while bits != 0 {
                let source = base + bits.trailing_zeros();
                bits &= bits - 1;
                let priority = self.priority[source as usize];
                if priority > floor {
                    (best, floor) = (Some(source), priority);
                }
            }
        }
        best
    }

    /// Sources of this word that are due and not claimed.
    fn waiting(&self, word: usize) -> u32 {
        (self.pending[word] | self.high[word]) & !self.claimed[word]
    }

    /// Brings the outputs up to date.
    fn update(&mut self) {
        for index in 0..self.harts.len() {
            let hart = &self.harts[index];
            let high = self.best(hart, hart.threshold).is_some();
            let hart = &mut self.harts[index];
            if hart.high != high {
                hart.high = high;
                hart.output.set(high);
            }
        }
    }

    /// The threshold decides who is interrupted, not what can be claimed.
    fn claim(&mut self, hart: usize) -> u32 {
        let Some(source) = self.best(&self.harts[hart], 0) else {
            return 0;
        };
        set(&mut self.pending, source, false);
        set(&mut self.claimed, source, true);
        self.update();
        source
    }

    /// Ignored, as the specification wants, for a source that is not enabled for this hart.
    fn complete(&mut self, hart: usize, source: u32) {
        if source <= self.sources && get(&self.harts[hart].enabled, source) {
            set(&mut self.claimed, source, false);
            self.update();
        }
    }

    fn register(&self, offset: u64) -> Option<Register> {
        let index = |base: &Range<u64>, stride| usize::try_from((offset - base.start) / stride).ok();
        let hart = |hart: Option<usize>| hart.filter(|&hart| hart < self.harts.len());
        if PRIORITY.contains(&offset) {
            let source = u32::try_from(offset / 4).ok()?;
            (1..=self.sources)
                .contains(&source)
                .then_some(Register::Priority(source))
        } else if PENDING.contains(&offset) {
            Some(Register::Pending(index(&PENDING, 4)?))
        } else if ENABLE.contains(&offset) {
            let word = usize::try_from(offset % ENABLE_STRIDE / 4).ok()?;
            Some(Register::Enable(hart(index(&ENABLE, ENABLE_STRIDE))?, word))
        } else if CONTEXT.contains(&offset) {
            let hart = hart(index(&CONTEXT, CONTEXT_STRIDE))?;
            match offset % CONTEXT_STRIDE {
                THRESHOLD => Some(Register::Threshold(hart)),
                CLAIM => Some(Register::Claim(hart)),
                _ => None,
            }
        } else {
            None
        }
    }

    /// The sources of one word that exist.
    fn existing(&self, word: usize) -> u32 {
        let first = word * 32;
        (0..32u32)
            .filter(|&bit| (1..=self.sources as usize).contains(&(first + bit as usize)))
            .fold(0, |mask, bit| mask | 1 << bit)
    }

    fn read_register(&mut self, offset: u64) -> u32 {
        match self.register(offset) {
            Some(Register::Priority(source)) => self.priority[source as usize],
            Some(Register::Pending(word)) => self.pending[word] | self.high[word] & !self.claimed[word],
            Some(Register::Enable(hart, word)) => self.harts[hart].enabled[word],
            Some(Register::Threshold(hart)) => self.harts[hart].threshold,
            Some(Register::Claim(hart)) => self.claim(hart),
            None => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match self.register(offset) {
            Some(Register::Priority(source)) => self.priority[source as usize] = value & MAX_PRIORITY,
            Some(Register::Enable(hart, word)) => {
                self.harts[hart].enabled[word] = value & self.existing(word);
            }
            Some(Register::Threshold(hart)) => {
                self.harts[hart].threshold = value & MAX_PRIORITY;
                self.update();
                // Drivers set the threshold when a hart starts, and it has forgotten its line then.
                let hart = &self.harts[hart];
                return hart.output.set(hart.high);
            }
            Some(Register::Claim(hart)) => return self.complete(hart, value),
            Some(Register::Pending(_)) | None => return,
        }
        self.update();
    }
}

impl BusDevice for Plic {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(word) if offset.is_multiple_of(4) => *word = self.read_register(offset).to_le_bytes(),
            _ => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Ok(&word) = <&[u8; 4]>::try_from(data)
            && offset.is_multiple_of(4)
        {
            self.write_register(offset, u32::from_le_bytes(word));
        }
    }
}

// === impl PlicSource ===

impl PlicSource {
    /// The line of `source` at this controller.
    pub fn new(plic: Arc<Mutex<Plic>>, source: u32) -> Self {
        Self { plic, source }
    }
}

impl IrqLine for PlicSource {
    fn trigger(&self) {
        self.plic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .trigger(self.source);
    }
}

impl LevelLine for PlicSource {
    fn set(&self, high: bool) {
        self.plic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .set_level(self.source, high);
    }
}

fn get(sources: &Sources, source: u32) -> bool {
    sources[source as usize / 32] & 1 << (source % 32) != 0
}

fn set(sources: &mut Sources, source: u32, value: bool) {
    let bit = 1 << (source % 32);
    let word = &mut sources[source as usize / 32];
    *word = if value { *word | bit } else { *word & !bit };
}

#[cfg(test)]
mod tests;
