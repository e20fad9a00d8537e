//! Ways to misuse registers that are not virtio's.

use super::bare::{load8, load16, load32, load64, store8, store16, store32, store64};
use super::{Verdict, trap};

/// The serial port.
pub const UART: u64 = 0x1000_0000;
/// The clock.
pub const RTC: u64 = 0x10_1000;
/// The supervisor's APLIC.
pub const APLIC: u64 = 0x0d00_0000;
/// The first hart's interrupt file.
pub const IMSIC: u64 = 0x2800_0000;
/// The PLIC, on hosts without AIA.
pub const PLIC: u64 = 0x0c00_0000;

/// Misuses the serial port; it must print afterwards, which the line about this case shows.
pub fn uart(act: impl FnOnce(u64)) -> Verdict {
    act(UART);
    Verdict::Answered
}

/// Misuses the clock, which must go on.
pub fn rtc(act: impl FnOnce(u64)) -> Verdict {
    act(RTC);
    let before = time();
    super::life::pause();
    Verdict::Answered.unless(time() == before, "the clock stands still")
}

fn time() -> u64 {
    load32(RTC) | load32(RTC + 4) << 32
}

/// Writes a byte register.
pub fn put(base: u64, register: u64, value: u64) {
    store8(base + register, value);
}

/// Every aligned access of every width, reads and writes of zeros; refused where all that comes of it is faults.
pub fn touched(base: u64, len: u64) -> Verdict {
    touched_every(base, len, 8)
}

/// [`touched`] at every multiple of `step`.
pub fn touched_every(base: u64, len: u64, step: usize) -> Verdict {
    let before = trap::count();
    for at in (0..len).step_by(step).map(|offset| base + offset) {
        store8(at, 0);
        store16(at, 0);
        store32(at, 0);
        store64(at, 0);
    }
    let verdict = touched_reads(base, len);
    if trap::count() == before {
        verdict
    } else {
        Verdict::Refused
    }
}

/// Every aligned read of every width.
pub fn touched_reads(base: u64, len: u64) -> Verdict {
    let before = trap::count();
    for at in (0..len).step_by(8).map(|offset| base + offset) {
        let _ = (load8(at), load16(at), load32(at), load64(at));
    }
    Verdict::answered_if(trap::count() == before)
}

/// Does this to every word of a range.
pub fn words(base: u64, len: u64, act: impl Fn(u64)) -> Verdict {
    let before = trap::count();
    (0..len).step_by(4).for_each(|offset| act(base + offset));
    Verdict::answered_if(trap::count() == before)
}

/// Does this, and puts the register there back to what it was.
pub fn kept(register: u64, act: impl FnOnce()) -> Verdict {
    let before = trap::count();
    let value = load32(register);
    act();
    store32(register, value);
    Verdict::answered_if(trap::count() == before)
}

/// A sequence of numbers that looks random and is the same in every run (xorshift).
fn nonsense(turns: u64) -> impl Iterator<Item = u64> {
    (0..turns).scan(0x9e37_79b9_7f4a_7c15_u64, |state, _| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        Some(*state)
    })
}

/// Five thousand words of nonsense, written to registers in this range.
pub fn at_random(base: u64, len: u64) {
    at_random_for(5000, base, len);
}

/// So many of them.
pub fn at_random_for(turns: u64, base: u64, len: u64) {
    nonsense(turns).for_each(|word| {
        let at = base + (word >> 32) % len / 4 * 4;
        if word & 3 == 0 {
            let _ = load32(at);
        } else {
            store32(at, word & 0xffff_ffff);
        }
    });
}

/// The same with bytes.
pub fn at_random_bytes(base: u64, len: u64) {
    nonsense(5000).for_each(|word| {
        let at = base + (word >> 32) % len;
        if word & 3 == 0 {
            let _ = load8(at);
        } else {
            store8(at, word & 0xff);
        }
    });
}
