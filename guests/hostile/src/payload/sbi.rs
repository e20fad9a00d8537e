//! Calls of the firmware.

use super::bare::{ecall, heed_the_timer, now, wait};
use super::{Verdict, trap};

/// Extensions of the SBI specification.
pub const BASE: u64 = 0x10;
/// Timers.
pub const TIME: u64 = 0x5449_4d45;
/// Interrupts between harts.
pub const IPI: u64 = 0x73_5049;
/// Fences on other harts.
pub const RFENCE: u64 = 0x5246_4e43;
/// Harts.
pub const HSM: u64 = 0x48_534d;
/// Reset.
pub const SRST: u64 = 0x5352_5354;
/// Counters.
pub const PMU: u64 = 0x50_4d55;
/// The debug console.
pub const DBCN: u64 = 0x4442_434e;
/// Sleep.
pub const SUSP: u64 = 0x5355_5350;
/// Stolen time.
pub const STA: u64 = 0x53_5441;

/// One call; arguments that are not given are zero.
pub fn sbi(extension: u64, function: u64, given: &[u64]) -> Verdict {
    let mut args = [0; 6];
    args.iter_mut().zip(given).for_each(|(to, &from)| *to = from);
    Verdict::answered_if(ecall(extension, function, args).0 == 0)
}

/// Functions 0 to 255 of an extension that nobody has.
pub fn every_function(extension: u64) -> Verdict {
    Verdict::answered_if(
        (0..256).any(|function| sbi(extension, function, &[function; 6]) == Verdict::Answered),
    )
}

/// The calls of old, from the timer to the last fence.
pub fn legacy() -> Verdict {
    [0, 3, 4, 5, 6, 7, 9, 15]
        .iter()
        .fold(Verdict::Refused, |_, &call| sbi(call, 0, &[u64::MAX; 6]))
}

/// Many timers, then none.
pub fn timers(when: fn(u64) -> u64) -> Verdict {
    let answered = (0..5000).all(|turn| sbi(TIME, 0, &[when(turn)]) == Verdict::Answered);
    Verdict::answered_if(answered & (sbi(TIME, 0, &[u64::MAX]) == Verdict::Answered))
}

/// Waits again and again for a timer that is long due.
pub fn waits() -> Verdict {
    heed_the_timer(true);
    let set = (0..1000).all(|_| {
        let set = sbi(TIME, 0, &[now().saturating_sub(1)]);
        wait(0);
        set == Verdict::Answered
    });
    heed_the_timer(false);
    Verdict::answered_if(set & (sbi(TIME, 0, &[u64::MAX]) == Verdict::Answered))
}

/// Answered, unless this traps.
pub fn unless_trapped(act: impl FnOnce()) -> Verdict {
    let before = trap::count();
    act();
    Verdict::answered_if(trap::count() == before)
}
