//! F: the serial port, the clock, the power register.

#[cfg(feature = "payload")]
use crate::payload::{bare::*, *};

cases! {
    "F-uart-divisor-zero", Uart, "a divisor of 0, and words after it", Answered Answered => || uart(|at| {put(at, 3, 0x83); put(at, 0, 0); put(at, 1, 0); put(at, 3, 3); put(at, 0, 0x2e);});
    "F-uart-divisor-wide", Uart, "the divisor written by every width", Answered Answered => || uart(|at| {put(at, 3, 0x80); store16(at, 0); store32(at, 0); store64(at, 0); put(at, 3, 3);});
    "F-uart-words-flood", Uart, "four thousand bytes without a look at the line", Answered Answered => || uart(|at| (0..4000).for_each(|_| put(at, 0, 0)));
    "F-uart-words-while-divisor", Uart, "words while the divisor is selected", Answered Answered => || uart(|at| {put(at, 3, 0x80); (0..100).for_each(|_| put(at, 0, 0x41)); put(at, 3, 3);});
    "F-uart-loopback-flood", Uart, "a thousand bytes to oneself, none of which is read", Answered Answered => || uart(|at| {put(at, 4, 0x10); (0..1000).for_each(|_| put(at, 0, 0x41)); put(at, 4, 0);});
    "F-uart-loopback-interrupts", Uart, "loopback with every modem line and every interrupt on", Answered Answered => || uart(|at| {put(at, 1, 0xff); put(at, 4, 0xff); (0..256).for_each(|value| {put(at, 4, value); load8(at + 6); load8(at + 2);}); put(at, 4, 0);});
    "F-uart-loopback-toggle", Uart, "loopback on and off a thousand times with bytes in it", Answered Answered => || uart(|at| {(0..1000).for_each(|_| {put(at, 4, 0x10); put(at, 0, 0x41); put(at, 4, 0);}); put(at, 2, 7);});
    "F-uart-interrupt-storm", Uart, "the transmit interrupt on and off ten thousand times", Answered Answered => || uart(|at| {(0..10_000).for_each(|turn| put(at, 1, turn & 3)); put(at, 1, 0);});
    "F-uart-fifo-storm", Uart, "the FIFOs reset ten thousand times", Answered Answered => || uart(|at| (0..10_000).for_each(|_| put(at, 2, 7)));
    "F-uart-fifo-nonsense", Uart, "every value of the FIFO register", Answered Answered => || uart(|at| (0..256).for_each(|value| put(at, 2, value)));
    "F-uart-line-nonsense", Uart, "every value of the line register, with words", Answered Answered => || uart(|at| {(0..256).for_each(|value| {put(at, 3, value); put(at, 0, 0);}); put(at, 3, 3);});
    "F-uart-read-empty", Uart, "a thousand reads of a byte that is not there", Answered Answered => || uart(|at| (0..1000).for_each(|_| {load8(at);}));
    "F-uart-status-write", Uart, "the line's and the modem's status are written", Refused Refused => || {let before = load8(0x1000_0005); uart(|at| {put(at, 5, 0); put(at, 6, 0);}).unless_answered(load8(0x1000_0005) == before)};
    "F-uart-scratch", Uart, "the scratch register keeps every value", Answered Answered => || Verdict::answered_if((0..256).all(|value| {store8(0x1000_0007, value); load8(0x1000_0007) == value}));
    "F-uart-half-reads", Uart, "registers read two bytes at a time", Answered Answered => || uart(|at| (0..8).step_by(2).for_each(|register| {load16(at + register);}));
    "F-uart-word-reads", Uart, "registers read four bytes at a time", Answered Answered => || uart(|at| (0..8).step_by(4).for_each(|register| {load32(at + register);}));
    "F-uart-double-reads", Uart, "all registers read at once", Answered Answered => || uart(|at| {load64(at);});
    "F-uart-half-writes", Uart, "registers written two bytes at a time", Answered Answered => || uart(|at| (0..8).step_by(2).for_each(|register| store16(at + register, 0)));
    "F-uart-word-writes", Uart, "registers written four bytes at a time", Answered Answered => || uart(|at| (0..8).step_by(4).for_each(|register| store32(at + register, 0)));
    "F-uart-double-writes", Uart, "all registers written at once", Answered Answered => || uart(|at| store64(at, 0));
    "F-uart-behind", Uart, "every offset behind the registers, read and written", Answered Answered => || uart(|at| (8..0x100).for_each(|register| {load8(at + register); put(at, register, 0xff);}));
    "F-uart-behind-window", Uart, "the first bytes behind the serial port's window", Answered Refused => || touched(0x1000_0100, 0x40);
    "F-uart-at-random", Uart, "five thousand bytes of nonsense to the serial port at random", Answered Answered => || uart(|at| {at_random_bytes(at, 8); put(at, 4, 0); put(at, 1, 0);});
    "F-rtc-widths", Rtc, "the time read by every width", Answered Refused => || touched(0x10_1000, 0x20);
    "F-rtc-latch", Rtc, "the upper half of the time read a thousand times without the lower", Answered Answered => || Verdict::answered_if((0..1000).all(|_| load32(0x10_1004) < 0xffff_ffff));
    "F-rtc-time-extremes", Rtc, "the time set to nothing and to the end of time", Answered Answered => || rtc(|at| {store32(at + 4, 0); store32(at, 0); store32(at + 4, 0xffff_ffff); store32(at, 0xffff_ffff);});
    "F-rtc-alarm-past", Rtc, "an alarm in the past, a thousand times", Answered Answered => || rtc(|at| {store32(at + 0x10, 1); (0..1000).for_each(|_| {store32(at + 0xc, 0); store32(at + 8, 1);}); store32(at + 0x10, 0); store32(at + 0x1c, 1);});
    "F-rtc-alarm-far", Rtc, "an alarm at the end of time", Answered Answered => || rtc(|at| {store32(at + 0x10, 1); store32(at + 0xc, 0xffff_ffff); store32(at + 8, 0xffff_ffff); store32(at + 0x14, 1); store32(at + 0x10, 0);});
    "F-rtc-alarm-storm", Rtc, "an alarm set and cleared five thousand times", Answered Answered => || rtc(|at| (0..5000).for_each(|_| {store32(at + 0xc, 0x7fff_ffff); store32(at + 8, 0); store32(at + 0x14, 1);}));
    "F-rtc-unknown", Rtc, "registers that the clock has not", Answered Answered => || rtc(|at| (0x20..0x1000).step_by(4).for_each(|register| {load32(at + register); store32(at + register, 0xffff_ffff);}));
    "F-rtc-at-random", Rtc, "five thousand words of nonsense to the clock at random", Answered Answered => || rtc(|at| {at_random(at, 0x20); store32(at + 0x10, 0); store32(at + 0x14, 1);});
    "F-syscon-read", Syscon, "the power register is read by every width", Answered Answered => || {(0..16).for_each(|at| {load8(0x10_0000 + at);}); load16(0x10_0000); load32(0x10_0000); load64(0x10_0000); Verdict::Answered};
    "F-syscon-byte", Syscon, "one byte of the word that switches the machine off", Refused Refused => || {store8(0x10_0000, 0x55); store8(0x10_0001, 0x55); Verdict::Refused};
    "F-syscon-double", Syscon, "eight bytes with the word that switches the machine off", Refused Refused => || {store64(0x10_0000, 0x5555 << 32); Verdict::Refused};
    "F-syscon-elsewhere", Syscon, "the word that switches the machine off, at every other place of the window", Refused Refused => || {(4..0x1000).step_by(4).for_each(|at| store32(0x10_0000 + at, 0x5555)); Verdict::Refused};
    "F-syscon-unknown", Syscon, "every word that means nothing", Refused Refused => || {(0..0x3000).for_each(|word| store32(0x10_0000, word)); Verdict::Refused};
    "F-hole-low", Memory, "the first bytes of the address space", Answered Refused => || touched(0, 0x40);
    "F-hole-clint", Memory, "where a timer of another board is", Answered Refused => || touched(0x200_4000, 0x40);
    "F-hole-config-device", Memory, "where QEMU has its configuration device", Answered Refused => || touched(0x1010_0000, 0x18);
    "F-hole-slots", Memory, "the windows behind the last virtio device", Answered Refused => || touched(0x1000_9000, 0x100);
    "F-hole-pci", Memory, "functions that are not there, in PCI's config space", Answered Answered => || touched_every(0x3000_8000, 0x8000, 64);
    "F-hole-pci-window", Memory, "PCI's memory window with nothing in it", Answered Answered => || touched(0x4000_0000, 0x40);
    "F-hole-below-ram", Memory, "the last bytes below RAM", Answered Answered => || touched(0x7fff_ffc0, 0x40);
    "F-hole-above-ram", Memory, "the first bytes behind RAM", Answered Refused => || touched(RAM_END, 0x40);
    "F-hole-high", Memory, "addresses of more and more bits", Answered Answered => || {(32..56).for_each(|bit| {touched(1 << bit, 8);}); Verdict::Answered};
    "F-hole-last", Memory, "the last bytes of the address space", Answered Refused => || touched(u64::MAX - 63, 0x40);
    "F-hole-reads-as-ones", Memory, "a hole reads as ones, or is a fault", Refused Refused => || {let value = load32(RAM_END + 0x1000); Verdict::Refused.unless(value != 0xffff_ffff && value != 0 && value != RAM_END + 0x1000, "a hole holds something")};
    "F-hole-storm", Memory, "twenty thousand writes to nowhere", Refused Refused => || {(0..20_000).for_each(|at| store32(RAM_END + 4 * at, 0)); Verdict::Refused};
    "F-flash-read", Memory, "flash, or the place where it would be, is read", Answered Answered => || touched_reads(0x2000_0000, 0x40);
    "F-flash-write", Memory, "commands of flash, written", Refused Refused => || {[0x90, 0x98, 0xe8, 0x20, 0xd0, 0xff].iter().for_each(|&command| store32(0x2000_0000, command | command << 16)); Verdict::Refused};
    "F-flash-storm", Memory, "every command of flash, five times over", Refused Refused => || {(0..5 * 256).for_each(|command| store8(0x2200_0000, command)); store8(0x2200_0000, 0xff); Verdict::Refused};
}
