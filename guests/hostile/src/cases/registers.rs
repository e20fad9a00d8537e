//! B, transport: the registers of virtio-mmio and its config space.

#[cfg(feature = "payload")]
use crate::payload::{bare::*, *};

cases! {
    "B-read-byte", Blk, "a register is read a byte at a time", Refused Refused => || on(blk(), |d| Verdict::answered_if(load8(d.base) == 0x76));
    "B-read-half", Blk, "a register is read two bytes at a time", Refused Refused => || on(blk(), |d| Verdict::answered_if(load16(d.base) == 0x6976));
    "B-read-double", Blk, "two registers are read at once", Refused Answered => || on(blk(), |d| Verdict::answered_if(load64(d.base) == 0x2_7472_6976));
    "B-read-middle-byte", Blk, "a byte in the middle of a register is read", Refused Refused => || on(blk(), |d| Verdict::answered_if(load8(d.base + 2) == 0x72));
    "B-write-byte", Blk, "a byte written to the status, which would reset the device", Refused Refused => || on(blk(), |d| {store8(d.base + register::STATUS, 0); Verdict::answered_if(d.status() != S_LIVE)});
    "B-write-half", Blk, "two bytes written to the status", Refused Refused => || on(blk(), |d| {store16(d.base + register::STATUS, 0); Verdict::answered_if(d.status() != S_LIVE)});
    "B-write-double", Blk, "eight bytes written to the status and what is behind it", Refused Answered => || on(blk(), |d| {store64(d.base + register::STATUS, 0); Verdict::answered_if(d.status() != S_LIVE)});
    "B-write-address-double", Blk, "the table's address written in one piece of eight bytes", Refused Answered => || on(raw_blk(), |d| address_in_one_piece(d));
    "B-notify-byte", Blk, "a kick of one byte", Polled Polled => || on(blk(), |d| {let d = flush_laid(d); store8(d.base + register::NOTIFY, 0); d.wait_for(0, 1)});
    "B-notify-half", Blk, "a kick of two bytes", Polled Polled => || on(blk(), |d| {let d = flush_laid(d); store16(d.base + register::NOTIFY, 0); d.wait_for(0, 1)});
    "B-notify-double", Blk, "a kick of eight bytes", Polled Answered => || on(blk(), |d| {let d = flush_laid(d); store64(d.base + register::NOTIFY, 0); d.wait_for(0, 1)});
    "B-compressed-access", Blk, "registers reached by compressed instructions", Answered Answered => || on(blk(), |d| {compressed_load(d.base); compressed_store(d.base + register::STATUS); Verdict::answered_if(d.status() == 0)});
    "B-undefined-read", Blk, "every offset without a register is read", Answered Answered => || on(blk(), |d| {(0x18..0x100).step_by(4).for_each(|at| {d.read(at);}); flush(d)});
    "B-undefined-write", Blk, "every offset without a register is written", Answered Answered => || on(blk(), |d| {UNDEFINED.iter().for_each(|&at| {d.write(at, 0xffff_ffff);}); flush(d)});
    "B-write-only-read", Blk, "registers that can only be written are read", Answered Answered => || on(blk(), |d| {[0x14, 0x20, 0x24, 0x30, 0x38, 0x50, 0x64, 0x80, 0xa4].iter().for_each(|&at| {d.read(at);}); flush(d)});
    "B-read-only-write", Blk, "magic, version, kind and vendor are overwritten", Refused Refused => || on(blk(), |d| {(0..0x10).step_by(4).for_each(|at| {d.write(at, 0);}); Verdict::answered_if(d.read(register::MAGIC) != 0x7472_6976 || d.read(register::DEVICE) != 2)});
    "B-queue-max-write", Blk, "the largest size of a queue is overwritten", Refused Refused => || on(raw_blk(), |d| {let max = d.read(register::QUEUE_MAX); Verdict::answered_if(d.write(register::QUEUE_MAX, 1 << 20).read(register::QUEUE_MAX) != max)});
    "B-interrupts-write", Blk, "the interrupt status is written", Refused Refused => || on(blk(), |d| Verdict::answered_if(d.write(register::INTERRUPTS, 3).read(register::INTERRUPTS) & 3 == 3));
    "B-acknowledge-nothing", Blk, "interrupts acknowledged that never were", Answered Answered => || on(blk(), |d| {d.write(register::ACKNOWLEDGE, 0xffff_ffff); flush(d)});
    "B-acknowledge-storm", Blk, "interrupts acknowledged while a ring full of requests is served", Answered Answered => || on(blk(), |d| {full_of_reads(d).kick(0); (0..2000).for_each(|_| {d.write(register::ACKNOWLEDGE, d.read(register::INTERRUPTS));}); d.wait_for(0, 1)});
    "B-never-acknowledged", Blk, "a hundred requests and no interrupt ever acknowledged", Answered Answered => || on(blk(), |d| Verdict::answered_if((0..100).all(|turn| flush_again(d, turn))));
    "B-queue-sel-all-ones", Blk, "queue 4,294,967,295 is selected and read", Refused Answered => || on(raw_blk(), |d| Verdict::answered_if(d.write(register::QUEUE_SEL, 0xffff_ffff).read(register::QUEUE_MAX) | d.read(register::QUEUE_READY) != 0));
    "B-queue-sel-storm", Blk, "every one of a thousand queues is set up", Answered Answered => || on(raw_blk(), |d| {d.negotiate(!F_EVENTS); (1..1000).for_each(|queue| {d.place(queue, 8, d.table(0), d.avail(0), d.used(0)).ready();}); flush(d.place_all().go())});
    "B-shared-memory", Blk, "shared memory regions that there are not", Refused Refused => || on(blk(), |d| Verdict::answered_if([0, 1, 255, 0xffff_ffff].iter().any(|&region| d.write(register::SHARED_SEL, region).read(register::SHARED_LEN) != 0xffff_ffff)));
    "B-queue-reset", Blk, "the reset of one queue, which was not offered", Answered Answered => || on(blk(), |d| {d.write(register::QUEUE_SEL, 0).write(register::QUEUE_RESET, 1); flush(d)});
    "B-generation-write", Blk, "the generation of config space is written", Answered Answered => || on(blk(), |d| {d.write(register::GENERATION, 0xffff_ffff); flush(d)});
    "B-config-beyond", Blk, "config space is read where the disk has none", Answered Refused => || on(blk(), |d| Verdict::answered_if((0x100..0xe00).step_by(4).all(|at| load32(d.base + register::CONFIG + at) == 0)));
    "B-config-last-byte", Blk, "the last byte of the window is read", Answered Refused => || on(blk(), |d| Verdict::answered_if(load8(d.base + WINDOW - 1) == 0));
    "B-config-widths", Blk, "config space is read by every width", Answered Answered => || on(blk(), |d| config_by_every_width(d));
    "B-config-across-end", Blk, "eight bytes of config space, half of them behind its end", Answered Refused => || on(rng(), |d| Verdict::answered_if(load64(d.base + register::CONFIG) == 0));
    "B-config-write", Blk, "the capacity is overwritten", Refused Refused => || on(blk(), |d| {let before = d.sectors(); store64(d.base + register::CONFIG, u64::MAX); store32(d.base + register::CONFIG, 1 << 30); Verdict::answered_if(d.sectors() != before)});
    "B-config-write-everywhere", Blk, "all of config space is overwritten by every width", Answered Answered => || on(raw_net(), |d| {config_overwritten(d); flush(blk())});
    "B-config-write-net", Net, "the hardware address is overwritten", Refused Refused => || on(net(), |d| {let before = d.config8(0); store8(d.base + register::CONFIG, before ^ 0xff); Verdict::answered_if(d.config8(0) != before)});
    "B-config-rng", Rng, "config space of a device that has none", Answered Refused => || on(rng(), |d| {store64(d.base + register::CONFIG, u64::MAX); Verdict::answered_if(load32(d.base + register::CONFIG) == 0)});
    "B-empty-window", Blk, "a window without a device is driven like a disk", Refused Refused => || drive_empty_window();
    "B-every-byte-read", Blk, "every byte of every window is read", Answered Answered => || on(blk(), |d| {(0..COUNT * WINDOW).for_each(|at| {load8(WINDOWS + at);}); flush(d)});
    "B-registers-at-random", Blk, "five thousand writes of nonsense to registers at random", Answered Answered => || on(blk(), |d| {at_random(d.base, 0x100); flush(d.up())});
    "B-registers-at-random-net", Net, "the same for the network", Answered Answered => || on(net(), |d| {at_random(d.base, 0x200); Verdict::answered_if(d.up().status() == S_LIVE)});
    "B-registers-at-random-console", Console, "the same for the console, whose config space would print", Answered Answered => || on(console(), |d| {at_random(d.base, 0x100); Verdict::answered_if(console().status() == S_LIVE)});
    "B-two-harts", Blk, "one hart resets a disk while the other one uses it", Answered Answered => || on(blk(), |d| two_harts(d));
}
