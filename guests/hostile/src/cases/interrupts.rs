//! F: interrupt controllers. Which one there is depends on the host; where one is not, its place is a hole.

#[cfg(feature = "payload")]
use crate::payload::{bare::*, *};

cases! {
    "F-aplic-every-register", Interrupts, "every register of the APLIC is read", ByHost Answered => || words(APLIC, 0x4000, |at| {load32(at);});
    "F-aplic-widths", Interrupts, "registers of the APLIC by every width", ByHost Refused => || touched(APLIC, 0x40);
    "F-aplic-domain", Interrupts, "every bit of the domain's settings", ByHost Answered => || kept(APLIC, || {store32(APLIC, 0xffff_ffff); store32(APLIC, 0); store32(APLIC, 0x8000_0104);});
    "F-aplic-source-zero", Interrupts, "settings of source 0, which there is not", ByHost Answered => || kept(APLIC, || {store32(APLIC + 0x3000, 0xffff_ffff); store32(APLIC + 0x1bfc, 0); store32(APLIC, 0x104);});
    "F-aplic-source-1023", Interrupts, "settings of the last source", ByHost Answered => || words(APLIC + 0xff0, 0x10, |at| store32(at, 0x7ff));
    "F-aplic-source-modes", Interrupts, "every mode of every source", ByHost Answered => || words(APLIC + 4, 0xffc, |at| {(0..8).for_each(|mode| store32(at, mode)); store32(at, 0);});
    "F-aplic-delegated", Interrupts, "every source delegated to a child that there is not", ByHost Answered => || words(APLIC + 4, 0xffc, |at| {store32(at, 0x7ff); store32(at, 0);});
    "F-aplic-set-storm", Interrupts, "sources up to 2,047 made pending, ten times over", ByHost Refused => || (0..10).fold(Verdict::Refused, |_, _| {(0..2048).for_each(|source| store32(APLIC + 0x1cdc, source)); Verdict::Refused});
    "F-aplic-enable-storm", Interrupts, "sources up to 2,047 enabled and disabled", ByHost Refused => || {(0..2048).for_each(|source| {store32(APLIC + 0x1edc, source); store32(APLIC + 0x1fdc, source);}); Verdict::Refused};
    "F-aplic-all-bits", Interrupts, "every pending and every enable bit at once", ByHost Answered => || {words(APLIC + 0x1c00, 0x80, |at| store32(at, 0xffff_ffff)); words(APLIC + 0x1e00, 0x80, |at| store32(at, 0xffff_ffff)); words(APLIC + 0x1d00, 0x80, |at| store32(at, 0xffff_ffff)); words(APLIC + 0x1f00, 0x80, |at| store32(at, 0xffff_ffff))};
    "F-aplic-target-absent", Interrupts, "interrupts sent to harts that there are not", ByHost Refused => || {store32(APLIC + 0x80, 6); words(APLIC + 0x3004, 0xf00, |at| {store32(at, 0xffff_ffff); store32(at, 0x3fff << 18 | 5);}); store32(APLIC + 0x1cdc, 0x20); store32(APLIC + 0x1edc, 0x20); store32(APLIC + 0x80, 0); words(APLIC + 0x3004, 0xf00, |at| store32(at, 0)); Verdict::Refused};
    "F-aplic-message", Interrupts, "a message made by hand, to every hart and of every number", ByHost Refused => || {(0..64).for_each(|turn| store32(APLIC + 0x3000, turn << 18 | turn * 31)); Verdict::Refused};
    "F-aplic-message-address", Interrupts, "the address of messages moved over RAM", ByHost Answered => || kept(APLIC, || {(0x1bc0..0x1bd0).step_by(4).for_each(|register| store32(APLIC + register, 0x8_0000 + register));});
    "F-aplic-at-random", Interrupts, "five thousand writes of nonsense at random to an APLIC that is off", ByHost Answered => || kept(APLIC, || {store32(APLIC, 0); at_random(APLIC + 4, 0x3ff8); store32(APLIC, 0);});
    "F-aplic-machine", Interrupts, "the APLIC or PLIC of the machine's own level", ByHost Refused => || touched(0x0c00_0000, 0x40);
    "F-imsic-zero", Interrupts, "interrupt 0 sent to a hart, which means nothing", ByHost Refused => || {store32(IMSIC, 0); Verdict::Refused};
    "F-imsic-beyond", Interrupts, "interrupts with numbers that there are not", ByHost Refused => || {(0..64).for_each(|bit| {store32(IMSIC, 1 << (bit & 31)); store32(IMSIC, 0xffff_ff00 + bit);}); Verdict::Refused};
    "F-imsic-big-endian", Interrupts, "interrupts sent to the big-endian register", ByHost Refused => || {store32(IMSIC + 4, 0xffff_ffff); store32(IMSIC + 4, 0x0500_0000); Verdict::Refused};
    "F-imsic-widths", Interrupts, "the page of an interrupt file by every width", ByHost Refused => || touched(IMSIC, 0x20);
    "F-imsic-every-word", Interrupts, "every word of an interrupt file's page is written", ByHost Answered => || words(IMSIC + 8, 0xff8, |at| store32(at, 1));
    "F-imsic-absent-hart", Interrupts, "the pages of harts that there are not", ByHost Refused => || touched_every(IMSIC + 2 * 0x1000, 0x1000, 64);
    "F-imsic-storm", Interrupts, "twenty thousand interrupts", ByHost Refused => || {(0..20_000).for_each(|turn| store32(IMSIC, turn & 63)); Verdict::Refused};
    "F-imsic-registers", Interrupts, "registers of the interrupt file that there are not", Illegal Refused => || {interrupt_file_unknown(0); Verdict::Refused};
    "F-imsic-enables", Interrupts, "every enable bit of the interrupt file", Illegal Refused => || {interrupt_file_all(0); Verdict::Refused};
    "F-imsic-claims", Interrupts, "a thousand claims with nothing pending", Illegal Refused => || {(0..1000).for_each(|_| interrupt_file_claim(0)); Verdict::Refused};
    "F-plic-priorities", Interrupts, "priorities of sources that there are not", ByHost Refused => || words(PLIC, 0x1000, |at| store32(at, 0xffff_ffff));
    "F-plic-pending", Interrupts, "pending bits are written", ByHost Refused => || words(PLIC + 0x1000, 0x80, |at| store32(at, 0xffff_ffff));
    "F-plic-enables", Interrupts, "enable bits of harts that there are not", ByHost Refused => || words(PLIC + 0x2000, 0x4000, |at| store32(at, 0xffff_ffff));
    "F-plic-thresholds", Interrupts, "the largest threshold of every context", ByHost Refused => || {(0..64).for_each(|context| store32(PLIC + 0x20_0000 + 0x1000 * context, 0xffff_ffff)); Verdict::Refused};
    "F-plic-claims", Interrupts, "claims of every context, and completions of everything", ByHost Refused => || {(0..64).for_each(|context| {let at = PLIC + 0x20_0004 + 0x1000 * context; load32(at); [0, 1, 63, 64, 1023, 0xffff_ffff].iter().for_each(|&source| store32(at, source));}); Verdict::Refused};
    "F-plic-widths", Interrupts, "registers of the PLIC by every width", ByHost Refused => || touched(PLIC + 0x20_0000, 0x10);
    "F-plic-last", Interrupts, "the last registers of the PLIC and what is behind them", ByHost Refused => || touched(PLIC + 0x5f_ffe0, 0x40);
    "F-plic-at-random", Interrupts, "five thousand words of nonsense to the PLIC at random", ByHost Refused => || {at_random(PLIC, 0x3000); words(PLIC + 0x2000, 0x100, |at| store32(at, 0)); Verdict::Refused};
}
