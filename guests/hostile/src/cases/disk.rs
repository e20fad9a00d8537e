//! C, disks.

#[cfg(feature = "payload")]
use crate::payload::{bare::*, *};

cases! {
    "C-read-past-end", Blk, "a read of the first sector that there is not", Refused Refused => || on(blk(), |d| d.simple(IN, d.sectors(), SECTOR));
    "C-read-across-end", Blk, "a read of eight sectors of which the last is on the disk", Refused Refused => || on(blk(), |d| d.simple(IN, d.sectors() - 1, 8 * SECTOR));
    "C-write-past-end", Blk, "a write behind the end, which must not make the disk grow", Refused Refused => || on(blk(), |d| d.simple(OUT, d.sectors() + 8, SECTOR));
    "C-write-across-end", Blk, "a write across the end, no sector of which may be written", Refused Refused => || partial_write();
    "C-sector-all-ones", Blk, "a read of sector 2^64 - 1", Refused Refused => || on(blk(), |d| d.simple(IN, u64::MAX, SECTOR));
    "C-sector-wraps-bytes", Blk, "a write to a sector whose byte is 2^64, that is 0", Refused Refused => || on(blk(), |d| d.simple(OUT, 1 << 55, SECTOR));
    "C-sector-negative", Blk, "a write to a sector whose byte is negative", Refused Refused => || on(blk(), |d| d.simple(OUT, 1 << 54, SECTOR));
    "C-sector-and-length-wrap", Blk, "a read whose sector and length together wrap around", Refused Refused => || on(blk(), |d| d.simple(IN, u64::MAX - 6, 8 * SECTOR));
    "C-read-511", Blk, "a read of 511 bytes", Refused Refused => || on(blk(), |d| d.simple(IN, 8, 511));
    "C-read-513", Blk, "a read of 513 bytes", Refused Refused => || on(blk(), |d| d.simple(IN, 8, 513));
    "C-write-1", Blk, "a write of one byte", Refused Refused => || on(blk(), |d| d.simple(OUT, 8, 1));
    "C-read-nothing", Blk, "a read of nothing", Answered Answered => || on(blk(), |d| d.request(IN, 8, &[]));
    "C-write-nothing", Blk, "a write of nothing", Answered Answered => || on(blk(), |d| d.request(OUT, 8, &[]));
    "C-read-nothing-past-end", Blk, "a read of nothing behind the end", Refused Refused => || on(blk(), |d| d.request(IN, u64::MAX, &[]));
    "C-read-into-readable", Blk, "a read whose buffer may only be read", Answered Answered => || on(blk(), |d| d.request(IN, 8, &[(d.buffer(DATA), 512, 0)]));
    "C-write-from-writable", Blk, "a write whose data may only be written", Answered Answered => || on(blk(), |d| d.request(OUT, 8, &[(d.buffer(DATA), 512, WRITE)]));
    "C-odd-pieces", Blk, "a sector in pieces of 1, 510 and 1 bytes, which is allowed", Answered Answered => || on(blk(), |d| d.request(IN, 8, &[(d.buffer(DATA), 1, WRITE), (d.buffer(DATA + 1), 510, WRITE), (d.buffer(DATA + 511), 1, WRITE)]));
    "C-header-short", Blk, "a header of 15 bytes", Refused NeedsReset => || header_of(15, 1);
    "C-header-in-two", Blk, "a header in two pieces, which is allowed", Answered Answered => || header_of(16, 8);
    "C-header-in-sixteen", Blk, "a header in sixteen pieces, which is allowed", Answered Answered => || header_of(16, 1);
    "C-header-with-data", Blk, "header and data in one buffer, which is allowed", Answered Answered => || on(blk(), |d| header_and_data(d));
    "C-status-with-data", Blk, "data and status in one buffer, which is allowed", Answered Answered => || on(blk(), |d| status_behind_data(d));
    "C-status-two-bytes", Blk, "a status of two bytes", Answered Answered => || on(blk(), |d| {d.header(FLUSH, 0); store8(d.buffer(STATUS + 1), 0xee); d.chain(0, &[(d.buffer(HEADER), 16, 0), (d.buffer(STATUS), 2, WRITE)])});
    "C-status-missing", Blk, "a request without a status", NeedsReset NeedsReset => || on(blk(), |d| d.header(FLUSH, 0).chain(0, &[(d.buffer(HEADER), 16, 0)]));
    "C-status-readable", Blk, "a status that may only be read", NeedsReset NeedsReset => || on(blk(), |d| d.header(FLUSH, 0).chain(0, &[(d.buffer(HEADER), 16, 0), (d.buffer(STATUS), 1, 0)]));
    "C-type-unknown", Blk, "a request of a type that there is not", Refused Refused => || on(blk(), |d| d.simple(0xff, 0, SECTOR));
    "C-type-all-ones", Blk, "a request of type 4,294,967,295", Refused Refused => || on(blk(), |d| d.simple(0xffff_ffff, 0, SECTOR));
    "C-type-scsi", Blk, "a SCSI command, which is of old", Refused Refused => || on(blk(), |d| d.simple(2, 0, SECTOR));
    "C-type-barrier", Blk, "a read with the barrier bit of old", Refused Answered => || on(blk(), |d| d.simple(0x8000_0000, 8, SECTOR));
    "C-type-lifetime", Blk, "the device's lifetime, which was not offered", Refused Refused => || on(blk(), |d| d.request(10, 0, &[(d.buffer(DATA), 512, WRITE)]));
    "C-type-secure-erase", Blk, "a secure erase, which was not offered", Refused Refused => || on(blk(), |d| d.simple(14, 0, 16));
    "C-zone-report", Blk, "a report of zones, which were not offered", Refused Refused => || on(blk(), |d| d.request(16, 0, &[(d.buffer(DATA), 4096, WRITE)]));
    "C-zone-append", Blk, "an append to a zone that there is not", Refused Refused => || on(blk(), |d| d.simple(15, 0, SECTOR));
    "C-zone-reset-all", Blk, "a reset of all zones", Refused Refused => || on(blk(), |d| d.request(26, 0, &[]));
    "C-flush-with-data", Blk, "a flush with data", Answered Answered => || on(blk(), |d| d.simple(FLUSH, 0, SECTOR));
    "C-flush-with-sector", Blk, "a flush of a sector that there is not", Answered Answered => || on(blk(), |d| d.request(FLUSH, u64::MAX, &[]));
    "C-flush-storm", Blk, "a ring full of flushes, eight times", Answered Answered => || on(blk(), |d| flush_storm(d));
    "C-id-short", Blk, "the serial into 19 bytes", Answered Answered => || on(blk(), |d| d.simple(GET_ID, 0, 19));
    "C-id-nothing", Blk, "the serial into nothing", Answered Answered => || on(blk(), |d| d.request(GET_ID, 0, &[]));
    "C-id-long", Blk, "the serial into 8 KiB, of which 20 bytes may be written", Answered Answered => || on(blk(), |d| long_id(d));
    "C-id-readable", Blk, "the serial into a buffer that may only be read", Answered Answered => || on(blk(), |d| d.request(GET_ID, 0, &[(d.buffer(DATA), 20, 0)]));
    "C-discard-nothing", Blk, "a discard without a segment", Refused NeedsReset => || on(blk(), |d| d.request(DISCARD, 0, &[]));
    "C-discard-half", Blk, "a discard with half a segment", Refused NeedsReset => || segments(DISCARD, 8, &[(8, 8, 0)]);
    "C-discard-past-end", Blk, "a discard behind the end", Refused Refused => || segments(DISCARD, 16, &[(1 << 40, 8, 0)]);
    "C-discard-wraps", Blk, "a discard whose sector and count wrap around", Refused Refused => || segments(DISCARD, 16, &[(u64::MAX, 0xffff_ffff, 0)]);
    "C-discard-flags", Blk, "a discard with flags that there are not", Refused Refused => || segments(DISCARD, 16, &[(8, 8, 0xffff_fffe)]);
    "C-discard-many", Blk, "a discard of 256 segments", Refused Refused => || many_segments(DISCARD);
    "C-zeroes-past-end", Blk, "zeroes across the end, no sector of which may be written", Refused Refused => || segments(ZEROES, 16, &[(0, 0xffff_ffff, 0)]);
    "C-zeroes-wrap", Blk, "zeroes whose sector and count wrap around", Refused Refused => || segments(ZEROES, 16, &[(u64::MAX - 3, 8, 0)]);
    "C-zeroes-flags", Blk, "zeroes with flags that there are not", Refused Refused => || segments(ZEROES, 16, &[(8, 8, 0xffff_fff0)]);
    "C-zeroes-many", Blk, "zeroes of 256 segments", Refused Refused => || many_segments(ZEROES);
    "C-write-read-only", ReadOnly, "a write to a disk that can only be read", Refused Refused => || on(read_only(), |d| d.simple(OUT, 8, SECTOR));
    "C-zeroes-read-only", ReadOnly, "zeroes for a disk that can only be read", Refused Refused => || on(read_only(), |d| {segment(d, 0, (8, 8, 0)); d.request(ZEROES, 0, &[(d.buffer(DATA), 16, 0)])});
    "C-discard-read-only", ReadOnly, "a discard on a disk that can only be read", Refused Refused => || on(read_only(), |d| {segment(d, 0, (8, 8, 0)); d.request(DISCARD, 0, &[(d.buffer(DATA), 16, 0)])});
    "C-flush-read-only", ReadOnly, "a flush of a disk that can only be read", Answered Answered => || on(read_only(), |d| d.request(FLUSH, 0, &[]));
    "C-write-through", Blk, "a write by a driver that does not know flushes", Answered Answered => || on(raw_blk().up_with(F_VERSION_1), |d| d.simple(OUT, 16, SECTOR));
    "C-write-while-changing", Blk, "a write whose data changes meanwhile", Answered Answered => || on(blk(), |d| changing_write(d));
    "C-same-sector-ring-full", Blk, "a ring full of reads of one sector into one buffer", Answered Answered => || on(blk(), |d| full_of_reads(d).kick(0).wait_for(0, 64));
    "C-priority-nonsense", Blk, "a read with every bit of the reserved word set", Answered Answered => || on(blk(), |d| {d.header(IN, 8); store32(d.buffer(HEADER + 4), 0xffff_ffff); d.descriptor(0, 0, d.buffer(HEADER), 16, NEXT, 1).descriptor(0, 1, d.buffer(DATA), 512, NEXT | WRITE, 2).descriptor(0, 2, d.buffer(STATUS), 1, WRITE, 0).offer(0, 0).serve(0).judged_by(d)});
}
