//! Ways to misuse the balloon: pages given back that are in use, are nobody's, or are not pages.

use super::bare::{
    RAM, RAM_END, SCRATCH, fill, holds_only, load8, load32, store8, store16, store32, store64,
};
use super::virtio::{Virtio, WRITE};
use super::{DATA, HEADER, IN, STATUS, Verdict, balloon, blk, life};

/// Queues: pages given, pages taken, statistics, pages that are free.
pub const INFLATE: u64 = 0;
/// Pages taken back.
pub const DEFLATE: u64 = 1;
/// Statistics.
pub const STATISTICS: u64 = 2;
/// Pages that are free.
pub const REPORT: u64 = 3;

/// Bytes of a page.
pub const PAGE: u64 = 0x1000;
/// A statistic: tag and value.
const STATISTIC: u64 = 10;

/// What is done to a balloon.
pub fn inflated(act: impl FnOnce(Virtio) -> Verdict) -> Verdict {
    act(balloon())
}

/// Numbers of pages, to a queue.
pub fn pages(queue: u64, numbers: &[u64]) -> Verdict {
    inflated(|d| numbered(d, queue, numbers))
}

fn numbered(d: Virtio, queue: u64, numbers: &[u64]) -> Verdict {
    (0..)
        .zip(numbers)
        .for_each(|(place, &number)| store32(d.buffer(DATA) + 4 * place, number));
    d.chain(queue, &[(d.buffer(DATA), 4 * numbers.len() as u64, 0)])
}

/// The same page, so often, in a list outside the device's own buffers.
pub fn same_page(times: u64) -> Verdict {
    inflated(|d| {
        let list = SCRATCH + (8 << 20);
        (0..times).for_each(|place| store32(list + 4 * place, SCRATCH >> 12));
        d.chain(INFLATE, &[(list, 4 * times, 0)])
    })
}

/// Pages given, which are the guest's again as soon as it writes to them.
pub fn given_and_written() -> Verdict {
    fill(SCRATCH, PAGE, 0x5a);
    let verdict = pages(INFLATE, &[SCRATCH >> 12]);
    fill(SCRATCH, PAGE, 0x33);
    verdict.unless(
        !holds_only(SCRATCH, PAGE, 0x33),
        "a page given back keeps nothing",
    )
}

/// The pages that the balloon's own rings lie in.
pub fn own_rings() -> Verdict {
    inflated(|d| numbered(d, INFLATE, &[d.table(0) >> 12, d.avail(0) >> 12, d.used(0) >> 12]))
}

/// The page that the list of pages lies in.
pub fn own_list() -> Verdict {
    inflated(|d| numbered(d, INFLATE, &[d.buffer(DATA) >> 12; 64]))
}

/// A page that a disk is asked to read into at the same moment.
pub fn page_of_a_read() -> Verdict {
    let disk = blk().header(IN, 0);
    disk.lay(
        0,
        &[
            (disk.buffer(HEADER), 16, 0),
            (SCRATCH, 16 * PAGE, WRITE),
            (disk.buffer(STATUS), 1, WRITE),
        ],
    );
    let d = balloon();
    (0..16).for_each(|page| store32(d.buffer(DATA) + 4 * page, (SCRATCH >> 12) + page));
    d.lay(INFLATE, &[(d.buffer(DATA), 64, 0)]);
    (0..20).for_each(|_| {
        disk.offer(0, 0).kick(0);
        d.offer(INFLATE, 0).kick(INFLATE);
    });
    disk.wait_for(0, 20)
        .unless(load8(disk.buffer(STATUS)) != 0, "a read failed")
        .unless(
            d.wait_for(INFLATE, 20) != Verdict::Answered,
            "a page was not taken",
        )
}

/// Free pages: one buffer of this length there.
pub fn reported(addr: u64, len: u64, flags: u64) -> Verdict {
    inflated(|d| {
        if d.ring_size(REPORT) == 0 {
            return Verdict::Refused;
        }
        d.chain(REPORT, &[(addr, len, flags)])
    })
}

/// A free page that is none: part of one, whose neighbours must stay.
pub fn part_of_a_page() -> Verdict {
    fill(SCRATCH, 2 * PAGE, 0x5a);
    let verdict = reported(SCRATCH + 0x800, PAGE, WRITE);
    verdict.unless(
        !holds_only(SCRATCH, 2 * PAGE, 0x5a),
        "parts of pages were given back",
    )
}

/// Statistics of these tags; a device keeps the buffer until it wants newer ones.
pub fn statistics(tags: &[u64], len: u64) -> Verdict {
    inflated(|d| {
        told(d, tags);
        d.chain(STATISTICS, &[(d.buffer(DATA), len, 0)])
    })
}

fn told(d: Virtio, tags: &[u64]) {
    (0..).zip(tags).for_each(|(place, &tag)| {
        let at = d.buffer(DATA) + STATISTIC * place;
        store8(at, tag & 0xff);
        store8(at + 1, tag >> 8);
        (2..STATISTIC).for_each(|byte| store8(at + byte, 0xff));
    });
}

/// Buffers of statistics, one after the other, where a driver has one.
pub fn statistics_flood() -> Verdict {
    inflated(|d| {
        told(d, &[0, 1, 2]);
        (0..64).for_each(|index| {
            d.descriptor(STATISTICS, index, d.buffer(DATA), 3 * STATISTIC, 0, 0)
                .offer(STATISTICS, index)
                .kick(STATISTICS);
        });
        d.wait_for(STATISTICS, 1)
    })
}

/// Config space: what the device wants, written; what the driver has given, by every width.
pub fn target_written() -> Verdict {
    inflated(|d| {
        let before = load32(d.config());
        store32(d.config(), 0xffff_ffff);
        store64(d.config(), u64::MAX);
        Verdict::answered_if(load32(d.config()) != before)
    })
}

/// What the driver says that it has given.
pub fn actual_written() -> Verdict {
    inflated(|d| {
        let at = d.config() + 4;
        store8(at, 0xff);
        store16(at, 0xffff);
        store32(at, 0xffff_ffff);
        Verdict::answered_if(load32(at) == 0xffff_ffff)
    })
}

/// Pages given, and resets.
pub fn pages_and_resets() -> Verdict {
    (0..50).for_each(|_| {
        inflated(|d| {
            store32(d.buffer(DATA), SCRATCH >> 12);
            d.lay(INFLATE, &[(d.buffer(DATA), 4, 0)]);
            (0..16).fold(d, |d, _| d.offer(INFLATE, 0)).kick(INFLATE).reset();
            Verdict::Answered
        });
    });
    pages(INFLATE, &[SCRATCH >> 12])
}

/// All memory but what the guest stands on and its rings.
pub fn all_that_is_free() -> Verdict {
    inflated(|d| {
        let list = SCRATCH;
        let (first, last) = ((SCRATCH + (1 << 20)) >> 12, (RAM_END - (4 << 20)) >> 12);
        (first..last).for_each(|page| store32(list + 4 * (page - first), page));
        d.chain(INFLATE, &[(list, 4 * (last - first), 0)])
    })
}

/// Where there is no RAM, or only devices.
pub const NOWHERE: [u64; 7] = [
    0,
    0x1000_0000 >> 12,
    0x2800_0000 >> 12,
    (RAM >> 12) - 1,
    RAM_END >> 12,
    0x7fff_ffff,
    0xffff_ffff,
];

/// A request as long as the queue, of one number each.
pub fn in_pieces_of_one() -> Verdict {
    inflated(|d| {
        store32(d.buffer(DATA), SCRATCH >> 12);
        let pieces = d.ring_size(INFLATE).min(64);
        (0..pieces).for_each(|index| {
            let more = if index + 1 == pieces { 0 } else { 1 };
            d.descriptor(INFLATE, index, d.buffer(DATA) + index % 4, 1, more, index + 1);
        });
        let verdict = d.offer(INFLATE, 0).serve(INFLATE);
        life::pause();
        verdict
    })
}
