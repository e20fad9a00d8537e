//! E, console and entropy. What is said on the console consists of control characters: it reaches the reader of the
//! verdicts in the middle of their lines, since the console is not the serial port that they come by.

#[cfg(feature = "payload")]
use crate::payload::{bare::*, *};

cases! {
    "E-rng-readable", Rng, "entropy into a buffer that may only be read", Answered Refused => || on(rng(), |d| d.chain(0, &[(d.buffer(DATA), 64, 0)]));
    "E-rng-nothing", Rng, "entropy into a buffer of no bytes", Answered Refused => || on(rng(), |d| d.chain(0, &[(d.buffer(DATA), 0, WRITE)]));
    "E-rng-one-byte", Rng, "entropy into one byte", Answered Answered => || on(rng(), |d| d.chain(0, &[(d.buffer(DATA), 1, WRITE)]));
    "E-rng-mixed", Rng, "entropy into a buffer to be written behind one to be read", Answered Answered => || on(rng(), |d| d.chain(0, &[(d.buffer(DATA), 64, 0), (d.buffer(DATA), 64, WRITE)]));
    "E-rng-24-mib", Rng, "24 MiB of entropy at once", Answered Answered => || on(rng(), |d| d.chain(0, &[(SCRATCH, 24 << 20, WRITE)]));
    "E-rng-pieces", Rng, "entropy into pieces of one byte", Answered Answered => || on(rng(), |d| d.chain(0, &[(d.buffer(DATA), 1, WRITE); 8]));
    "E-rng-over-rings", Rng, "entropy over the device's own rings", Race Race => || on(rng(), |d| d.chain(0, &[(d.table(0), 0x9000, WRITE)]));
    "E-rng-nowhere", Rng, "entropy behind RAM", NeedsReset Answered => || on(rng(), |d| d.chain(0, &[(RAM_END, 64, WRITE)]));
    "E-rng-flood", Rng, "five hundred requests for entropy", Answered Answered => || on(rng(), |d| entropy_flood(d));
    "E-rng-loop", Rng, "a loop of buffers for entropy", NeedsReset NeedsReset => || on(rng(), |d| d.descriptor(0, 0, d.buffer(DATA), 64, NEXT | WRITE, 0).offer(0, 0).serve(0));
    "E-console-send-writable", Console, "words in a buffer to be written", Answered Answered => || on(console(), |d| d.chain(1, &[(d.buffer(DATA), 64, WRITE)]));
    "E-console-send-nothing", Console, "no words", Answered NeedsReset => || on(console(), |d| d.chain(1, &[(d.buffer(DATA), 0, 0)]));
    "E-console-send-nowhere", Console, "words behind RAM", NeedsReset Answered => || on(console(), |d| d.chain(1, &[(RAM_END, 64, 0)]));
    "E-console-send-64-kib", Console, "64 KiB of words in one buffer: more would be skipped for a slow reader, and verdicts with them", Answered Answered => || on(console(), |d| {fill(SCRATCH, 64 << 10, 0); d.chain(1, &[(SCRATCH, 64 << 10, 0)])});
    "E-console-send-control", Console, "words that change a terminal", Answered Answered => || on(console(), |d| {store64(d.buffer(DATA), u64::from_le_bytes(*b"\x1b\x0e\x0c\x07\x08\x7f\x1b\0")); d.chain(1, &[(d.buffer(DATA), 8, 0)])});
    "E-console-send-flood", Console, "two hundred buffers of words", Answered Answered => || on(console(), |d| word_flood(d));
    "E-console-receive-readable", Console, "a buffer for what is typed that may only be read", Refused Refused => || on(console(), |d| d.chain(0, &[(d.buffer(DATA), 64, 0)]));
    "E-console-receive-nowhere", Console, "a buffer for what is typed behind RAM", Refused Refused => || on(console(), |d| d.chain(0, &[(RAM_END, 64, WRITE)]));
    "E-console-control-port", Console, "a control message about port 4,294,967,295", Answered Answered => || console_control(0xffff_ffff, 3);
    "E-console-control-event", Console, "a control message of a kind that there is not", Answered Answered => || console_control(0, 0xffff);
    "E-console-control-open", Console, "a port is opened and closed a hundred times", Answered Answered => || (0..100).fold(Verdict::Answered, |_, _| console_control(0, 6));
    "E-console-control-short", Console, "a control message of one byte", Answered Answered => || on(raw_console().up_with(!F_EVENTS), |d| d.chain(3, &[(d.buffer(DATA), 1, 0)]));
    "E-console-emergency", Console, "an emergency write, which was not offered", Answered Answered => || on(console(), |d| {store32(d.base + register::CONFIG + 8, 0x0a); Verdict::answered_if(d.status() == S_LIVE)});
    "E-console-third-queue", Console, "the queues of a second port, without having agreed to one", Refused Refused => || on(raw_console().up_with(F_VERSION_1), |d| d.chain(5, &[(d.buffer(DATA), 16, 0)]));
}
