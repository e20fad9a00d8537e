//! Ways to misuse disks, network, console and entropy that need more than a line.

use super::bare::{SCRATCH, fill, holds_only, store8, store32, store64};
use super::virtio::{F_EVENTS, NEXT, Virtio, WRITE};
use super::{
    DATA, HEADER, IN, OUT, SECTOR, STATUS, Verdict, blk, flush_again, net, on, raw_blk, raw_console,
};

/// A write of eight sectors, the last of which is not on the disk: the seven others must stay as they were.
pub fn partial_write() -> Verdict {
    let (disk, last) = (raw_blk(), raw_blk().sectors() - 1);
    let prepared = disk.write_sector(last, 0x11);
    let disk = disk.up();
    fill(disk.buffer(DATA), 8 * SECTOR, 0x22);
    let verdict = disk.simple(OUT, last, 8 * SECTOR);
    verdict
        .unless(!prepared, "the last sector cannot be written")
        .unless(!disk.sector_holds(last, 0x11), "a write that failed has written")
}

/// A flush whose header has `len` bytes in pieces of `piece`.
pub fn header_of(len: u64, piece: u64) -> Verdict {
    let disk = blk().header(IN, 8);
    let pieces = len / piece;
    (0..pieces).for_each(|index| {
        disk.descriptor(
            0,
            index,
            disk.buffer(HEADER) + piece * index,
            piece,
            NEXT,
            index + 1,
        );
    });
    disk.descriptor(0, pieces, disk.buffer(DATA), 512, NEXT | WRITE, pieces + 1)
        .descriptor(0, pieces + 1, disk.buffer(STATUS), 1, WRITE, 0)
        .offer(0, 0)
        .serve(0)
        .judged_by(disk)
}

/// A write whose header and data lie in one buffer.
pub fn header_and_data(disk: Virtio) -> Verdict {
    let at = disk.buffer(DATA);
    store32(at, OUT);
    store64(at + 8, 32);
    disk.header(OUT, 32);
    disk.lay(0, &[(at, 16 + SECTOR, 0), (disk.buffer(STATUS), 1, WRITE)])
        .offer(0, 0)
        .serve(0)
        .judged_by(disk)
}

/// A read whose data and status lie in one buffer.
pub fn status_behind_data(disk: Virtio) -> Verdict {
    disk.header(IN, 8);
    store8(disk.buffer(DATA) + SECTOR, 0xee);
    let verdict = disk.chain(
        0,
        &[
            (disk.buffer(HEADER), 16, 0),
            (disk.buffer(DATA), SECTOR + 1, WRITE),
        ],
    );
    verdict.unless(
        super::bare::load8(disk.buffer(DATA) + SECTOR) != 0,
        "the status is not the last byte",
    )
}

/// Flushes, one after the other.
pub fn flush_storm(disk: Virtio) -> Verdict {
    Verdict::answered_if((0..500).all(|turn| flush_again(disk, turn)))
}

/// The serial, into far more room than it needs.
pub fn long_id(disk: Virtio) -> Verdict {
    fill(disk.buffer(DATA), 0x2000, 0x77);
    let verdict = disk.simple(super::GET_ID, 0, 0x2000);
    verdict.unless(
        !holds_only(disk.buffer(DATA) + 24, 0x1fe8, 0x77),
        "more than a serial was written",
    )
}

/// Writes one segment of a discard: sector, sectors, flags.
pub fn segment(disk: Virtio, index: u64, (sector, count, flags): (u64, u64, u64)) {
    let at = disk.buffer(DATA) + 16 * index;
    store64(at, sector);
    store32(at + 8, count);
    store32(at + 12, flags);
}

/// A discard, or zeroes, for these segments, of which `len` bytes are given.
pub fn segments(kind: u64, len: u64, segments: &[(u64, u64, u64)]) -> Verdict {
    let disk = blk();
    (0..)
        .zip(segments)
        .for_each(|(index, &it)| segment(disk, index, it));
    disk.request(kind, 0, &[(disk.buffer(DATA), len, 0)])
}

/// More segments than any disk takes, of the sectors that a case may write.
pub fn many_segments(kind: u64) -> Verdict {
    let disk = blk();
    (0..256).for_each(|index| segment(disk, index, (64, 1, 0)));
    disk.request(kind, 0, &[(disk.buffer(DATA), 4096, 0)])
}

/// A write whose data changes under way.
pub fn changing_write(disk: Virtio) -> Verdict {
    disk.header(OUT, 40).lay(
        0,
        &[
            (disk.buffer(HEADER), 16, 0),
            (disk.buffer(DATA), 4096, 0),
            (disk.buffer(STATUS), 1, WRITE),
        ],
    );
    (0..20).for_each(|turn| {
        disk.offer(0, 0).kick(0);
        fill(disk.buffer(DATA), 4096, if turn & 1 == 0 { 0x33 } else { 0x44 });
    });
    disk.wait_for(0, 20)
}

/// A frame of 64 bytes with its header, in so many pieces.
pub fn in_pieces(device: Virtio, pieces: u64) -> Verdict {
    (0..pieces).for_each(|index| {
        let (len, flags) = if index + 1 == pieces { (64, 0) } else { (1, NEXT) };
        device.descriptor(1, index, device.buffer(DATA) + index, len, flags, index + 1);
    });
    device.offer(1, 0).serve(1)
}

/// A frame of `len` bytes whose header has these bytes at these offsets and is zero elsewhere.
pub fn frame(header: &[(u64, u64)], len: u64) -> Verdict {
    framed(net(), header, len)
}

/// [`frame`] on a device that is set up already.
pub fn framed(device: Virtio, header: &[(u64, u64)], len: u64) -> Verdict {
    let at = SCRATCH;
    fill(at, 64, 0);
    header
        .iter()
        .for_each(|&(offset, value)| store8(at + offset, value));
    device.chain(1, &[(at, 12 + len, 0)])
}

/// As many frames as fit, eight times.
pub fn frame_storm(device: Virtio) -> Verdict {
    let size = device.ring_size(1);
    device.lay(1, &[(device.buffer(DATA), 76, 0)]);
    Verdict::answered_if((1..=8).all(|round| {
        (0..size)
            .fold(device, |device, _| device.offer(1, 0))
            .kick(1)
            .wait_for(1, round * size)
            == Verdict::Answered
    }))
}

/// Buffers of this length for received frames; a frame of ours may come back, or none.
pub fn received_into(len: u64, flags: u64) -> Verdict {
    let device = net();
    (0..8).for_each(|index| {
        device
            .descriptor(0, index, device.buffer(DATA), len, flags, 0)
            .offer(0, index);
    });
    device.kick(0).wait_for(0, 1)
}

/// A command to a control queue: class, command, its data.
pub fn control(device: Virtio, queue: u64, command: &[u64]) -> Verdict {
    if device.ring_size(queue) == 0 {
        return Verdict::Refused;
    }
    (0..)
        .zip(command)
        .for_each(|(place, &byte)| store8(device.buffer(DATA) + place, byte));
    let (class, rest) = (
        command.len().min(2) as u64,
        command.len().saturating_sub(2) as u64,
    );
    let at = device.buffer(DATA);
    device.chain(
        queue,
        &[
            (at, class, 0),
            (at + 2, rest, 0),
            (device.buffer(STATUS), 1, WRITE),
        ],
    )
}

/// Frames both ways, and resets.
pub fn frames_and_resets(device: Virtio) -> Verdict {
    (0..50).for_each(|_| {
        let device = device.up();
        device
            .lay(0, &[(device.buffer(DATA), 2048, WRITE)])
            .lay(1, &[(device.buffer(DATA), 76, 0)]);
        (0..64)
            .fold(device, |device, _| device.offer(0, 0).offer(1, 0))
            .kick(0)
            .kick(1)
            .reset();
    });
    device.up().chain(1, &[(device.buffer(DATA), 76, 0)])
}

/// Requests for entropy, one after the other.
pub fn entropy_flood(device: Virtio) -> Verdict {
    device.lay(0, &[(device.buffer(DATA), 4096, WRITE)]);
    Verdict::answered_if(
        (1..=500).all(|turn| device.offer(0, 0).kick(0).wait_for(0, turn) == Verdict::Answered),
    )
}

/// Words for the console, one buffer after the other.
pub fn word_flood(device: Virtio) -> Verdict {
    device.lay(1, &[(device.buffer(DATA), 16, 0)]);
    Verdict::answered_if(
        (1..=200).all(|turn| device.offer(1, 0).kick(1).wait_for(1, turn) == Verdict::Answered),
    )
}

/// A control message of the console, where there is a queue for it.
pub fn console_control(port: u64, event: u64) -> Verdict {
    on(raw_console().up_with(!F_EVENTS), |device| {
        if device.ring_size(3) == 0 {
            return Verdict::Refused;
        }
        store32(device.buffer(DATA), port);
        store32(device.buffer(DATA) + 4, event | 1 << 16);
        device.chain(3, &[(device.buffer(DATA), 8, 0)])
    })
}
