//! The PCI bus: functions brought up as firmware would, and their registers for what no driver does.

use super::bare::{load8, load16, load32, load64, store8, store16, store32};
use super::transport::structure;
use super::virtio::{S_LIVE, Virtio};
use super::{Verdict, blk, flush, flushes, trap};

/// Configuration space.
pub const ECAM: u64 = 0x3000_0000;
/// Where BARs of 32 bits go.
pub const LOW: u64 = 0x4000_0000;
/// Where BARs of 64 bits go.
pub const HIGH: u64 = 0x4_0000_0000;
/// Slots that are looked at for devices: as many as there are arenas for.
pub(super) const SLOTS: u64 = 10;
/// Bytes of the window for BARs that each slot gets.
const ROOM: u64 = 0x10_0000;
/// Where the BAR with the messages is in them.
const MESSAGES: u64 = 0x8_0000;
/// The place that BARs are moved to by those who move them about.
pub const ELSEWHERE: u64 = LOW + 0x1000_0000;

const VENDOR: u64 = 0x1af4;
const FIRST_DEVICE: u64 = 0x1040;

/// The command register.
pub const COMMAND: u64 = 0x04;
/// The status register.
pub const STATUS_REGISTER: u64 = 0x06;
/// The first BAR.
pub const BAR0: u64 = 0x10;
/// Decoding, and leave to reach memory.
pub const WORKING: u64 = 0x6;
/// Decoding alone.
pub const DECODING: u64 = 0x2;
/// Leave to reach memory alone.
pub const MASTER: u64 = 0x4;

const CAP_VENDOR: u64 = 0x09;
const CAP_MSIX: u64 = 0x11;
/// The structure with features, status and queues; the registers that lead to BARs.
const COMMON: u64 = 1;
const ACCESS: u64 = 5;
/// More capabilities than configuration space has room for.
const MAX_CAPABILITIES: usize = 48;

/// A function's registers.
#[derive(Clone, Copy)]
pub struct Function {
    /// Its configuration space.
    pub at: u64,
    slot: u64,
}

/// Where the structures of the function in this slot are put.
pub(super) fn structures(slot: u64) -> u64 {
    LOW + slot * ROOM
}

/// Whether there are virtio devices on the bus.
pub(super) fn has_devices() -> bool {
    Function::in_slot(1).half(0) == VENDOR
}

/// Puts every device's BARs where they belong, with messages off.
pub(super) fn place_everything() {
    if !has_devices() {
        return;
    }
    let there = (1..SLOTS).map(Function::in_slot);
    there
        .filter(|function| function.half(0) == VENDOR)
        .for_each(|function| {
            function.place();
        });
}

// === impl Function ===

impl Function {
    /// The first function in this slot.
    pub fn in_slot(slot: u64) -> Self {
        Self {
            at: ECAM + (slot << 15),
            slot,
        }
    }

    /// Another function of the same slot.
    pub fn sibling(self, function: u64) -> Self {
        Self {
            at: self.at + (function << 12),
            ..self
        }
    }

    pub(super) fn is_virtio(self, kind: u64) -> bool {
        self.word(0) == VENDOR | (FIRST_DEVICE + kind) << 16
    }

    /// One byte.
    pub fn byte(self, register: u64) -> u64 {
        load8(self.at + register)
    }

    /// Two bytes.
    pub fn half(self, register: u64) -> u64 {
        load16(self.at + register)
    }

    /// Four bytes.
    pub fn word(self, register: u64) -> u64 {
        load32(self.at + register)
    }

    /// Writes one byte.
    pub fn set_byte(self, register: u64, value: u64) -> Self {
        store8(self.at + register, value);
        self
    }

    /// Writes two bytes.
    pub fn set_half(self, register: u64, value: u64) -> Self {
        store16(self.at + register, value);
        self
    }

    /// Writes four bytes.
    pub fn set_word(self, register: u64, value: u64) -> Self {
        store32(self.at + register, value);
        self
    }

    /// What is switched on.
    pub fn command(self, bits: u64) -> Self {
        self.set_half(COMMAND, bits)
    }

    /// The capabilities, along the list.
    pub fn capabilities(self) -> impl Iterator<Item = u64> {
        let next = move |at: u64| Some(self.byte(at)).filter(|&next| next != 0);
        core::iter::successors(next(0x34), move |&at| next(at + 1)).take(MAX_CAPABILITIES)
    }

    fn virtio_capability(self, kind: u64) -> Option<u64> {
        let is_it = |&at: &u64| self.byte(at) == CAP_VENDOR && self.byte(at + 3) == kind;
        self.capabilities().find(is_it)
    }

    /// The registers that lead to BARs.
    pub fn access(self) -> u64 {
        self.virtio_capability(ACCESS).unwrap_or(0)
    }

    /// Which BAR has the structures.
    pub fn bar(self) -> u64 {
        self.virtio_capability(COMMON).map_or(0, |at| self.byte(at + 4))
    }

    /// The register of the BAR with the structures.
    pub fn bar_register(self) -> u64 {
        BAR0 + 4 * self.bar()
    }

    /// The capability of the messages, where the host has such.
    pub fn messages(self) -> Option<u64> {
        self.capabilities().find(|&at| self.byte(at) == CAP_MSIX)
    }

    /// Where the table of the messages is put.
    pub fn table(self) -> u64 {
        structures(self.slot) + MESSAGES
    }

    /// Puts the structures somewhere else.
    pub fn move_to(self, address: u64) -> Self {
        let register = self.bar_register();
        self.set_word(register, address & 0xffff_ffff)
            .set_word(register + 4, address >> 32)
    }

    /// Everything as firmware leaves it.
    pub fn place(self) -> Self {
        if let Some(at) = self.messages() {
            let register = BAR0 + 4 * (self.word(at + 4) & 7);
            self.set_half(at + 2, 0).set_word(register, self.table());
        }
        self.move_to(structures(self.slot)).command(WORKING)
    }

    /// How many messages there are.
    pub fn message_count(self, at: u64) -> u64 {
        (self.half(at + 2) & 0x7ff) + 1
    }
}

// === impl Virtio: on the bus ===

impl Virtio {
    /// Whether a device that works answers there.
    pub fn answers(self) -> bool {
        let before = trap::count();
        let status = load8(self.base + structure::COMMON + 20);
        trap::count() == before && status == S_LIVE
    }
}

/// What is done to the function of a disk that works.
pub fn function(act: impl FnOnce(Function, Virtio) -> Verdict) -> Verdict {
    let disk = blk();
    act(Function::in_slot(disk.slot()), disk)
}

/// The same with the function's messages; refused where the host has none.
pub fn messages(act: impl FnOnce(Function, Virtio, u64) -> Verdict) -> Verdict {
    function(|f, d| f.messages().map_or(Verdict::Refused, |at| act(f, d, at)))
}

/// Afterwards the function is where it was, and its disk works without being set up again.
pub fn put_back(f: Function, d: Virtio, verdict: Verdict) -> Verdict {
    f.place();
    verdict.unless(!flushes(d), "the disk does not come back with its BAR")
}

/// Whether the structures answer where they are moved to.
pub fn moved_to(address: u64) -> Verdict {
    function(|f, d| {
        f.move_to(address);
        let there = Verdict::answered_if(d.seen_at(address).answers());
        put_back(f, d, there)
    })
}

/// Whether there is something else than ones in configuration space there.
pub fn says_something(f: Function) -> Verdict {
    let before = trap::count();
    let said = (0..0x1000)
        .step_by(0x40)
        .any(|register| f.word(register) != 0xffff_ffff);
    Verdict::answered_if(said && trap::count() == before)
}

/// Ones into this part of configuration space, by every width.
pub fn overwritten(f: Function, from: u64, to: u64) {
    (from..to).for_each(|register| {
        f.set_byte(register, 0xff);
    });
    (from..to).step_by(2).for_each(|register| {
        f.set_half(register, 0xffff);
    });
    let words = (from..to).filter(|register| register % 4 == 0);
    words.for_each(|register| {
        f.set_word(register, 0xffff_ffff);
    });
}

/// Does this, and sees whether these four bytes are others then.
pub fn changes(f: Function, register: u64, act: impl FnOnce(Function)) -> Verdict {
    let before = f.word(register);
    act(f);
    Verdict::answered_if(f.word(register) != before)
}

/// Configuration space says the same whatever the width it is read by.
pub fn config_widths(f: Function) -> Verdict {
    let differs = (0..0x40).step_by(4).any(|at| {
        let bytes = (0..4).rev().fold(0, |word, place| word << 8 | f.byte(at + place));
        let halves = f.half(at) | f.half(at + 2) << 16;
        bytes != f.word(at) || halves != f.word(at)
    });
    Verdict::Answered.unless(differs, "configuration space differs from width to width")
}

/// The list of capabilities ends, stays where capabilities are, and has the five of virtio.
pub fn capability_walk(f: Function) -> Verdict {
    let (count, wild) = f.capabilities().fold((0, false), |(count, wild), at| {
        (count + 1, wild | (at < 0x40 || at % 4 != 0))
    });
    let all = (COMMON..=ACCESS).all(|kind| f.virtio_capability(kind).is_some());
    Verdict::Answered
        .unless(
            count >= MAX_CAPABILITIES || wild,
            "the list of capabilities goes astray",
        )
        .unless(!all, "a capability of virtio is missing")
}

/// What a BAR of all ones reads back as is its size.
pub fn bar_size(f: Function, register: u64) -> u64 {
    f.set_word(register, 0xffff_ffff);
    (!(f.word(register) & 0xffff_fff0) & 0xffff_ffff) + 1
}

/// Moves the structures to and fro with a request under way each time.
pub fn move_storm(f: Function, d: Virtio) -> Verdict {
    super::rings::full_of_reads(d);
    (0..40).for_each(|turn| {
        d.kick(0);
        f.move_to(if turn & 1 == 0 { ELSEWHERE } else { d.base });
    });
    f.place();
    flush(d.up())
}

/// Reads and writes of every width at the edges of configuration space of every slot.
pub fn every_slot() -> Verdict {
    let before = trap::count();
    (0..32).map(Function::in_slot).for_each(|f| {
        [0, 0x38, 0xf8, 0x100, 0xff8].iter().for_each(|&at| {
            let _ = (f.byte(at), f.half(at), f.word(at), load64(f.at + at));
            let _ = (f.byte(at + 7), f.half(at + 6), f.word(at + 4));
        });
    });
    Verdict::answered_if(trap::count() == before)
}
