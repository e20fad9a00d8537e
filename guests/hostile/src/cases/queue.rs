//! A, rings: the rings themselves, their place, size and indices; kicks; resets.

#[cfg(feature = "payload")]
use crate::payload::{bare::*, *};

cases! {
    "A-avail-jump-size", Blk, "the available index jumps by one more than the queue has", NeedsReset NeedsReset => || on(blk(), |d| d.jump(0, d.ring_size(0) + 1).serve(0));
    "A-avail-jump-half", Blk, "the available index jumps by 32,768", NeedsReset NeedsReset => || on(blk(), |d| d.jump(0, 32768).serve(0));
    "A-avail-backwards", Blk, "the available index goes back by one", NeedsReset NeedsReset => || on(blk(), |d| d.jump(0, 0xffff).serve(0));
    "A-avail-back-after-use", Blk, "the available index goes back behind requests that were served", NeedsReset NeedsReset => || on(blk(), |d| {let _ = flush(d); d.jump(0, 0).serve_second()});
    "A-head-is-size", Blk, "an available entry that is the first index behind the table", NeedsReset NeedsReset => || on(blk(), |d| d.offer(0, d.ring_size(0)).serve(0));
    "A-head-65535", Blk, "an available entry that is the largest index there is", NeedsReset NeedsReset => || on(blk(), |d| d.offer(0, 0xffff).serve(0));
    "A-head-twice", Blk, "the same chain made available twice at once", Answered Answered => || on(blk(), |d| {d.header(FLUSH, 0); d.lay(0, &[(d.buffer(HEADER), 16, 0), (d.buffer(STATUS), 1, WRITE)]).offer(0, 0).offer(0, 0).kick(0).wait_for(0, 2)});
    "A-head-every-entry", Blk, "the same chain in every entry of the ring", Answered Answered => || on(blk(), |d| {d.header(FLUSH, 0); d.lay(0, &[(d.buffer(HEADER), 16, 0), (d.buffer(STATUS), 1, WRITE)]); (0..d.ring_size(0)).fold(d, |d, _| d.offer(0, 0)).kick(0).wait_for(0, d.ring_size(0))});
    "A-head-in-the-middle", Blk, "a chain that begins in the middle of another one", NeedsReset NeedsReset => || on(blk(), |d| d.header(IN, 8).lay(0, &[(d.buffer(HEADER), 16, 0), (d.buffer(DATA), 512, 0), (d.buffer(DATA), 16, 0)]).offer(0, 1).serve(0));
    "A-empty-descriptors", Blk, "descriptors that were never written", NeedsReset NeedsReset => || on(blk(), |d| d.offer(0, 7).serve(0));
    "A-size-zero", Blk, "a queue of no entries", NeedsReset Answered => || with_size(0);
    "A-size-three", Blk, "a queue whose size is no power of two", NeedsReset Answered => || with_size(3);
    "A-size-over-max", Blk, "a queue of twice the largest size", NeedsReset Answered => || on(raw_blk(), |d| with_size(2 * d.read(register::QUEUE_MAX)));
    "A-size-65536", Blk, "a queue of 65,536 entries", NeedsReset Answered => || with_size(65536);
    "A-size-all-ones", Blk, "a queue of 4,294,967,295 entries", NeedsReset Answered => || with_size(0xffff_ffff);
    "A-size-one", Blk, "a queue of one entry, and a request that needs two", NeedsReset NeedsReset => || with_size(1);
    "A-table-misaligned", Blk, "a table at an odd address", NeedsReset NeedsReset => || placed(|d| (d.table(0) + 1, d.avail(0), d.used(0)));
    "A-avail-misaligned", Blk, "an available ring at an odd address", NeedsReset Refused => || placed(|d| (d.table(0), d.avail(0) + 1, d.used(0)));
    "A-used-misaligned", Blk, "a used ring at a multiple of two", NeedsReset Refused => || placed(|d| (d.table(0), d.avail(0), d.used(0) + 2));
    "A-table-nowhere", Blk, "a table behind RAM", NeedsReset NeedsReset => || placed(|d| (RAM_END, d.avail(0), d.used(0)));
    "A-avail-nowhere", Blk, "an available ring behind RAM", NeedsReset Refused => || placed(|d| (d.table(0), RAM_END, d.used(0)));
    "A-used-nowhere", Blk, "a used ring behind RAM", NeedsReset Refused => || placed(|d| (d.table(0), d.avail(0), RAM_END));
    "A-table-across-end", Blk, "a table that begins in RAM and ends behind it", NeedsReset Refused => || placed(|d| (RAM_END - 64, d.avail(0), d.used(0)));
    "A-avail-across-end", Blk, "an available ring that ends behind RAM", NeedsReset Refused => || placed(|d| (d.table(0), RAM_END - 16, d.used(0)));
    "A-used-across-end", Blk, "a used ring that ends behind RAM", NeedsReset Refused => || placed(|d| (d.table(0), d.avail(0), RAM_END - 16));
    "A-rings-in-device", Blk, "all three rings in the disk's own registers", NeedsReset Refused => || placed(|d| (d.base, d.base + 0x40, d.base + 0x80));
    "A-rings-wrap", Blk, "rings whose ends wrap around to address 0", NeedsReset Refused => || placed(|_| (u64::MAX - 15, u64::MAX - 15, u64::MAX - 15));
    "A-rings-at-zero", Blk, "rings at address 0, ready without a place", NeedsReset Refused => || placed(|_| (0, 0, 0));
    "A-rings-equal", Blk, "table and both rings at one address", NeedsReset NeedsReset => || placed(|d| (d.table(0), d.table(0), d.table(0)));
    "A-used-is-avail", Blk, "the used ring over the available ring", Refused Refused => || placed(|d| (d.table(0), d.avail(0), d.avail(0)));
    "A-used-is-table", Blk, "the used ring over the table", Refused Refused => || placed(|d| (d.table(0), d.avail(0), d.table(0)));
    "A-used-in-flash", Blk, "the used ring where flash is or may be", NeedsReset Refused => || placed(|d| (d.table(0), d.avail(0), 0x2000_0000));
    "A-rings-of-another-queue", Console, "two queues with the same rings", Answered Answered => || on(raw_console(), |d| shared_rings(d));
    "A-place-while-live", Blk, "a live queue is given another place, which must not count", Answered Answered => || on(blk(), |d| {d.place(0, 8, RAM_END, RAM_END, RAM_END); flush(d)});
    "A-ready-twice", Blk, "a live queue is made ready again", Answered Answered => || on(blk(), |d| {d.write(register::QUEUE_SEL, 0).ready().ready(); flush(d)});
    "A-ready-off", Blk, "a request to a queue that was switched off", Refused Answered => || on(blk(), |d| {d.write(register::QUEUE_SEL, 0).write(register::QUEUE_READY, 0); flush(d)});
    "A-ready-toggled", Blk, "a queue that is switched off and on a hundred times with a request in it", Race Race => || on(blk(), |d| toggled(d));
    "A-ready-without-queue", Blk, "a queue that does not exist is placed and made ready", Refused Answered => || on(blk(), |d| absent_queue(d, 7));
    "A-ready-without-queue-huge", Blk, "queue 4,294,967,295 is placed and made ready", Refused Answered => || on(blk(), |d| absent_queue(d, 0xffff_ffff));
    "A-kick-before-driver-ok", Blk, "a kick before DRIVER_OK", Refused Answered => || on(raw_blk(), |d| {d.negotiate(!F_EVENTS).place_all(); flush(d)});
    "A-kick-before-features", Blk, "queues and a kick right after reset", Refused Answered => || on(raw_blk(), |d| {d.reset().place_all(); flush(d)});
    "A-kick-after-reset", Blk, "a kick of a device that was just reset", Refused Refused => || on(blk(), |d| {d.reset(); flush(d)});
    "A-kick-absent-queue", Blk, "a kick of the first queue that does not exist", Refused Refused => || on(blk(), |d| d.kick(1).wait_for(0, 1));
    "A-kick-queue-65535", Blk, "a kick of queue 65,535", Refused Refused => || on(blk(), |d| d.kick(0xffff).wait_for(0, 1));
    "A-kick-queue-all-ones", Blk, "a kick of queue 4,294,967,295", Refused Refused => || on(blk(), |d| d.kick(0xffff_ffff).wait_for(0, 1));
    "A-kick-empty", Blk, "a kick of a queue with nothing in it", Refused Refused => || on(blk(), |d| d.kick(0).wait_for(0, 1));
    "A-kick-storm", Blk, "twenty thousand kicks without a request", Answered Answered => || on(blk(), |d| {(0..20_000).for_each(|_| {d.kick(0);}); flush(d)});
    "A-kick-storm-all-devices", Blk, "a thousand kicks of every window, device or not", Answered Answered => || on(blk(), |d| {kick_everything(); flush(d)});
    "A-needs-reset-goes-on", Blk, "a device that stands still is kicked and used as if nothing were wrong", NeedsReset NeedsReset => || on(blk(), |d| {let _ = d.offer(0, 0xffff).serve(0); d.jump(0, 0); flush(d)});
    "A-needs-reset-ready", Blk, "a device that stands still gets its queue switched off and on", NeedsReset NeedsReset => || on(blk(), |d| {let _ = d.offer(0, 0xffff).serve(0); d.write(register::QUEUE_SEL, 0).write(register::QUEUE_READY, 0).place_all(); flush(d)});
    "A-reset-in-flight", Blk, "a reset with a ring full of requests under way", Answered Answered => || on(blk(), |d| {full_of_reads(d).kick(0).reset(); flush(d.up())});
    "A-reset-storm", Blk, "two hundred resets, each with requests under way", Answered Answered => || on(blk(), |d| {(0..200).for_each(|_| {full_of_reads(d.up()).kick(0).reset();}); flush(d.up())});
    "A-reset-storm-bare", Rng, "ten thousand resets", Answered Answered => || on(rng(), |d| {(0..10_000).for_each(|_| {d.reset();}); Verdict::answered_if(d.up().status() == S_LIVE)});
    "A-rings-freed-after-reset", Blk, "rings that are something else after a reset must not be written", Answered Answered => || on(blk(), |d| late_writes(d));
    "A-event-index-nonsense", Blk, "an event index that is never reached", Answered Answered => || on(raw_blk().up_with(!0), |d| {store16(d.avail(0) + 4 + 2 * d.ring_size(0), 0x7fff); flush(d)});
    "A-avail-flags", Blk, "an available ring with every flag set", Answered Answered => || on(blk(), |d| {store16(d.avail(0), 0xffff); flush(d)});
    "A-used-idx-overwritten", Blk, "a used index that the driver changes under the device", Answered Answered => || on(blk(), |d| {store16(d.used(0) + 2, 0x1234); flush_laid(d).serve(0)});
}
