//! Ways to misuse rings that need more than a line.

use super::bare::{SCRATCH, fence, fill, load16, load32, load64, store16};
use super::transport::register;
use super::virtio::{F_EVENTS, INDIRECT, NEXT, Virtio, WRITE};
use super::{
    COUNT, DATA, FLUSH, HEADER, IN, OUT, SECTOR, STATUS, Verdict, WINDOW, WINDOWS, blk, life, raw_blk,
};

/// What is done to a device.
pub fn on(device: Virtio, act: impl FnOnce(Virtio) -> Verdict) -> Verdict {
    act(device)
}

/// A read whose data goes there.
pub fn data_at(addr: u64, len: u64) -> Verdict {
    on(blk(), |disk| disk.request(IN, 8, &[(addr, len, WRITE)]))
}

/// A flush whose header is there.
pub fn header_at(addr: u64) -> Verdict {
    on(blk(), |disk| {
        disk.chain(0, &[(addr, 16, 0), (disk.buffer(STATUS), 1, WRITE)])
    })
}

/// A flush whose status is there.
pub fn status_at(addr: u64) -> Verdict {
    on(blk(), |disk| {
        disk.header(FLUSH, 0)
            .chain(0, &[(disk.buffer(HEADER), 16, 0), (addr, 1, WRITE)])
    })
}

/// A flush laid out and made available, without a kick.
pub fn flush_laid(disk: Virtio) -> Virtio {
    disk.header(FLUSH, 0)
        .lay(
            0,
            &[(disk.buffer(HEADER), 16, 0), (disk.buffer(STATUS), 1, WRITE)],
        )
        .offer(0, 0)
}

/// A flush on queues as they are.
pub fn flush(disk: Virtio) -> Verdict {
    flush_laid(disk).serve(0).judged_by(disk)
}

/// Whether a flush is answered, on queues as they are, whatever comes of the case.
pub fn flushes(disk: Virtio) -> bool {
    let served = flush_laid(disk).kick(0).wait_patiently(0, 1);
    served.judged_by(disk) == Verdict::Answered
}

/// The `turn`th flush on one device, counted from 0.
pub fn flush_again(disk: Virtio, turn: u64) -> bool {
    flush_laid(disk).kick(0).wait_for(0, turn + 1) == Verdict::Answered
}

// === impl Verdict ===

impl Verdict {
    /// For a chain that was answered: what its status says.
    pub fn judged_by(self, disk: Virtio) -> Self {
        if self == Self::Answered {
            disk.judged()
        } else {
            self
        }
    }

    /// Refused if nothing has changed.
    pub fn unless_answered(self, unchanged: bool) -> Self {
        if unchanged { Self::Refused } else { self }
    }
}

// === impl Virtio: rings ===

impl Virtio {
    /// Kicks, and waits until more chains than one came back.
    pub fn serve_second(self) -> Verdict {
        self.kick(0).wait_for(0, 2)
    }
}

/// Every descriptor names the next one, and the last one the first.
pub fn loop_of_all(disk: Virtio) -> Verdict {
    let size = disk.ring_size(0);
    (0..size).for_each(|index| {
        disk.descriptor(0, index, disk.buffer(DATA), 2, NEXT, (index + 1) % size);
    });
    disk.offer(0, 0).serve(0)
}

/// A write of this many pieces of 2 bytes, and a sector's rest in the last one.
pub fn write_in_pieces(disk: Virtio, pieces: u64) -> Verdict {
    disk.header(OUT, 24)
        .descriptor(0, 0, disk.buffer(HEADER), 16, NEXT, 1);
    (1..=pieces).for_each(|index| {
        let len = if index == pieces {
            2 * SECTOR - 2 * (pieces - 1)
        } else {
            2
        };
        disk.descriptor(0, index, disk.buffer(DATA), len, NEXT, index + 1);
    });
    disk.descriptor(0, pieces + 1, disk.buffer(STATUS), 1, WRITE, 0)
        .offer(0, 0)
        .serve(0)
        .judged_by(disk)
}

/// Where tables of tens of thousands of descriptors have room.
const LARGE_TABLE: u64 = SCRATCH;

/// A read by an indirect table of so many descriptors, all of them used.
pub fn indirect_of(disk: Virtio, entries: u64) -> Verdict {
    disk.header(IN, 8)
        .descriptor_at(LARGE_TABLE, disk.buffer(HEADER), 16, NEXT, 1);
    (1..entries - 1).for_each(|index| {
        disk.descriptor_at(
            LARGE_TABLE + 16 * index,
            disk.buffer(DATA),
            512,
            NEXT | WRITE,
            index + 1,
        );
    });
    disk.descriptor_at(LARGE_TABLE + 16 * (entries - 1), disk.buffer(STATUS), 1, WRITE, 0);
    disk.descriptor(0, 0, LARGE_TABLE, 16 * entries, INDIRECT, 0)
        .offer(0, 0)
        .serve(0)
}

/// Writes an indirect table of a read: header, data in `entries - 2` pieces, status.
pub fn indirect_table(disk: Virtio, table: u64, entries: u64) {
    disk.header(IN, 8)
        .descriptor_at(table, disk.buffer(HEADER), 16, NEXT, 1);
    (1..entries - 1).for_each(|index| {
        disk.descriptor_at(
            table + 16 * index,
            disk.buffer(DATA),
            512,
            NEXT | WRITE,
            index + 1,
        );
    });
    disk.descriptor_at(table + 16 * (entries - 1), disk.buffer(STATUS), 1, WRITE, 0);
}

/// A read by an indirect table at this place.
pub fn indirect_at(disk: Virtio, table: u64, entries: u64) -> Verdict {
    indirect_table(disk, table, entries);
    disk.descriptor(0, 0, table, 16 * entries, INDIRECT, 0)
        .offer(0, 0)
        .serve(0)
        .judged_by(disk)
}

/// A read by an indirect table whose length is said to be this.
pub fn indirect_len(len: u64) -> Verdict {
    let disk = blk();
    indirect_table(disk, disk.buffer(0x5000), 3);
    disk.descriptor(0, 0, disk.buffer(0x5000), len, INDIRECT, 0)
        .offer(0, 0)
        .serve(0)
}

/// An indirect table that is said to be there.
pub fn indirect_elsewhere(addr: u64) -> Verdict {
    on(blk(), |disk| {
        disk.descriptor(0, 0, addr, 48, INDIRECT, 0).offer(0, 0).serve(0)
    })
}

/// A read into the same memory, so often.
pub fn overlapping(disk: Virtio, times: u64, len: u64) -> Verdict {
    disk.header(IN, 0)
        .descriptor(0, 0, disk.buffer(HEADER), 16, NEXT, 1);
    (1..=times).for_each(|index| {
        disk.descriptor(0, index, SCRATCH, len, NEXT | WRITE, index + 1);
    });
    disk.descriptor(0, times + 1, disk.buffer(STATUS), 1, WRITE, 0)
        .offer(0, 0)
        .serve(0)
        .judged_by(disk)
}

/// Reads again and again while `change` is at work.
pub fn changing(disk: Virtio, change: fn(Virtio, u64)) -> Verdict {
    disk.header(IN, 8).lay(
        0,
        &[
            (disk.buffer(HEADER), 16, 0),
            (disk.buffer(DATA), 512, WRITE),
            (disk.buffer(STATUS), 1, WRITE),
        ],
    );
    (0..50).for_each(|_| {
        disk.offer(0, 0).kick(0);
        (0..64).for_each(|turn| change(disk, turn));
    });
    life::let_others_work();
    disk.wait_for(0, 1)
}

/// A flush on a queue that is set up with this size.
pub fn with_size(size: u64) -> Verdict {
    let disk = raw_blk().negotiate(!F_EVENTS);
    fill(disk.table(0), 0x1_0000, 0);
    disk.place(0, size, disk.table(0), disk.avail(0), disk.used(0))
        .ready()
        .go();
    flush(disk)
}

/// A flush on a queue whose table and rings are set up there.
pub fn placed(place: fn(Virtio) -> (u64, u64, u64)) -> Verdict {
    let disk = raw_blk().negotiate(!F_EVENTS);
    fill(disk.table(0), 0x1_0000, 0);
    let (table, avail, used) = place(disk);
    disk.place(0, disk.ring_size(0), table, avail, used).ready().go();
    flush(disk)
}

/// Both queues of a device get the same rings.
pub fn shared_rings(device: Virtio) -> Verdict {
    device.negotiate(!(F_EVENTS | 2));
    fill(device.table(0), 0x1_0000, 0);
    (0..2).for_each(|queue| {
        let size = device.ring_size(queue);
        device
            .place(queue, size, device.table(0), device.avail(0), device.used(0))
            .ready();
    });
    device
        .go()
        .lay(0, &[(device.buffer(DATA), 1, 0)])
        .offer(0, 0)
        .kick(0)
        .kick(1)
        .wait_for(0, 1)
}

/// A queue that is switched off and on with a request in it.
pub fn toggled(disk: Virtio) -> Verdict {
    (0..100).for_each(|_| {
        flush_laid(disk).kick(0);
        disk.write(register::QUEUE_SEL, 0)
            .write(register::QUEUE_READY, 0)
            .place(0, disk.ring_size(0), disk.table(0), disk.avail(0), disk.used(0))
            .ready();
    });
    disk.wait_for(0, 1)
}

/// A queue that does not exist is set up.
pub fn absent_queue(disk: Virtio, queue: u64) -> Verdict {
    disk.place(queue, 8, disk.table(1), disk.avail(1), disk.used(1))
        .ready();
    Verdict::answered_if(disk.read(register::QUEUE_READY) != 0)
}

/// Kicks four queues in every window.
pub fn kick_everything() {
    (0..1000).for_each(|turn| {
        super::bare::store32(
            WINDOWS + turn % COUNT * WINDOW + register::NOTIFY,
            turn / COUNT % 4,
        )
    });
}

/// A ring full of reads of one sector into one buffer, without a kick.
pub fn full_of_reads(disk: Virtio) -> Virtio {
    disk.header(IN, 8).lay(
        0,
        &[
            (disk.buffer(HEADER), 16, 0),
            (disk.buffer(DATA), 512, WRITE),
            (disk.buffer(STATUS), 1, WRITE),
        ],
    );
    (0..disk.ring_size(0)).fold(disk, |disk, _| disk.offer(0, 0))
}

/// After a reset, rings and buffers are the driver's again: nothing may change in them.
pub fn late_writes(disk: Virtio) -> Verdict {
    full_of_reads(disk).kick(0).reset();
    fill(disk.table(0), 0x1_0000, 0x5a);
    fill(disk.buffer(DATA), SECTOR, 0x5a);
    life::let_others_work();
    life::pause();
    fence();
    let untouched = super::bare::holds_only(disk.table(0), 0x1_0000, 0x5a)
        && super::bare::holds_only(disk.buffer(DATA), SECTOR, 0x5a);
    flush(disk.up()).unless(!untouched, "the disk wrote after it was reset")
}

/// Whether these features are agreed upon; where they are, a flush must work.
pub fn agreed(device: Virtio, wanted: fn(Virtio) -> u64) -> Verdict {
    let features = wanted(device);
    device.introduce().accept(features).write(register::STATUS, 11);
    Verdict::answered_if(device.status() & 8 != 0)
}

/// Offsets of virtio-mmio's window where no register is.
pub const UNDEFINED: [u64; 22] = [
    0x18, 0x1c, 0x28, 0x2c, 0x3c, 0x40, 0x48, 0x4c, 0x54, 0x58, 0x5c, 0x68, 0x6c, 0x74, 0x78, 0x7c, 0x88,
    0x8c, 0x98, 0xa8, 0xc4, 0xe0,
];

/// The table's address in one store of eight bytes, then a flush.
pub fn address_in_one_piece(disk: Virtio) -> Verdict {
    disk.negotiate(!F_EVENTS);
    fill(disk.table(0), 0x1_0000, 0);
    disk.place(0, disk.ring_size(0), 0, disk.avail(0), disk.used(0));
    super::bare::store64(disk.base + register::DESCRIPTORS, disk.table(0));
    disk.ready().go();
    match flush(disk) {
        Verdict::NeedsReset => Verdict::Refused,
        other => other,
    }
}

/// Config space says the same whatever the width it is read by.
pub fn config_by_every_width(disk: Virtio) -> Verdict {
    let at = disk.base + register::CONFIG;
    let bytes = (0..8)
        .rev()
        .fold(0, |word, place| word << 8 | disk.config8(place));
    let halves = (0..4)
        .rev()
        .fold(0, |word, place| word << 16 | load16(at + 2 * place));
    let words = load32(at) | load32(at + 4) << 32;
    Verdict::Answered
        .unless(
            bytes != words || halves != words,
            "the capacity differs from width to width",
        )
        .unless(
            load64(at) != words && load64(at) != u64::MAX && load64(at) != at,
            "the capacity differs when read at once",
        )
}

/// All of config space is overwritten.
pub fn config_overwritten(device: Virtio) {
    let at = device.base + register::CONFIG;
    (0..0xf00).for_each(|offset| super::bare::store8(at + offset, 0xff));
    (0..0xf00)
        .step_by(2)
        .for_each(|offset| store16(at + offset, 0xffff));
    (0..0xf00)
        .step_by(4)
        .for_each(|offset| super::bare::store32(at + offset, 0xffff_ffff));
    (0..0xf00)
        .step_by(8)
        .for_each(|offset| super::bare::store64(at + offset, u64::MAX));
}

/// Everything a driver does, in a window where no device is.
pub fn drive_empty_window() -> Verdict {
    let window = Virtio::empty();
    window.introduce().write(register::STATUS, 15);
    window
        .place(0, 8, window.table(0), window.avail(0), window.used(0))
        .ready()
        .kick(0);
    Verdict::answered_if(window.status() == 15)
}
