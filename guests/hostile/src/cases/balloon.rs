//! E, balloon: pages that are given back. A guest may harm itself by that, and nobody else.

#[cfg(feature = "payload")]
use crate::payload::{bare::*, *};

cases! {
    "E-balloon-nowhere", Balloon, "pages that are not RAM", Answered Answered => || pages(INFLATE, &NOWHERE);
    "E-balloon-deflate-nowhere", Balloon, "pages that are not RAM, taken back", Answered Answered => || pages(DEFLATE, &NOWHERE);
    "E-balloon-deflate-never-given", Balloon, "pages taken back that were never given", Answered Answered => || pages(DEFLATE, &[SCRATCH >> 12; 256]);
    "E-balloon-duplicates", Balloon, "the same page 512 times", Answered Answered => || pages(INFLATE, &[SCRATCH >> 12; 512]);
    "E-balloon-megabyte", Balloon, "a request of 256 thousand pages", Answered Answered => || same_page(1 << 18);
    "E-balloon-everything", Balloon, "all memory that the guest does not stand on, in one request", Answered Answered => || all_that_is_free();
    "E-balloon-given-and-written", Balloon, "a page that is written to after it was given back", Answered Answered => || given_and_written();
    "E-balloon-own-rings", Balloon, "the pages of the balloon's own rings", Race Race => || own_rings();
    "E-balloon-own-list", Balloon, "the page in which the list of pages is", Answered Answered => || own_list();
    "E-balloon-tree", Balloon, "the last pages of RAM, where the device tree was", Answered Answered => || pages(INFLATE, &[(RAM_END >> 12) - 1, (RAM_END >> 12) - 2, (RAM_END >> 12) - 16]);
    "E-balloon-page-of-a-read", Balloon, "pages that a disk reads into at the same moment", Answered Answered => || page_of_a_read();
    "E-balloon-nothing", Balloon, "a request of no bytes", Answered NeedsReset => || pages(INFLATE, &[]);
    "E-balloon-half-a-number", Balloon, "a request of three bytes", Answered Answered => || inflated(|d| d.chain(INFLATE, &[(d.buffer(DATA), 3, 0)]));
    "E-balloon-number-and-a-half", Balloon, "a request of six bytes", Answered Answered => || inflated(|d| d.chain(INFLATE, &[(d.buffer(DATA), 6, 0)]));
    "E-balloon-pieces", Balloon, "a request in pieces of one byte", Answered Answered => || in_pieces_of_one();
    "E-balloon-writable", Balloon, "a request in a buffer to be written", Answered Answered => || inflated(|d| d.chain(INFLATE, &[(d.buffer(DATA), 64, WRITE)]));
    "E-balloon-list-nowhere", Balloon, "a request behind RAM", NeedsReset Answered => || inflated(|d| d.chain(INFLATE, &[(RAM_END, 64, 0)]));
    "E-balloon-list-four-gib", Balloon, "a request of four GiB", NeedsReset NeedsReset => || inflated(|d| d.chain(INFLATE, &[(SCRATCH, 0xffff_ffff, 0)]));
    "E-balloon-list-loop", Balloon, "a request that loops", NeedsReset NeedsReset => || inflated(|d| d.descriptor(INFLATE, 0, d.buffer(DATA), 4, NEXT, 0).offer(INFLATE, 0).serve(INFLATE));
    "E-balloon-resets", Balloon, "fifty resets with pages under way", Answered Answered => || pages_and_resets();
    "E-balloon-report", Balloon, "two pages that are free", Answered Answered => || reported(SCRATCH, 2 * PAGE, WRITE);
    "E-balloon-report-all", Balloon, "24 MiB that are free", Answered Answered => || reported(SCRATCH, 24 << 20, WRITE);
    "E-balloon-report-part", Balloon, "parts of two pages that are free", Answered Answered => || part_of_a_page();
    "E-balloon-report-nothing", Balloon, "free memory of no bytes", Answered NeedsReset => || reported(SCRATCH, 0, WRITE);
    "E-balloon-report-readable", Balloon, "free pages in a buffer that may only be read", Answered Answered => || reported(SCRATCH, PAGE, 0);
    "E-balloon-report-nowhere", Balloon, "free pages behind RAM", NeedsReset Answered => || reported(RAM_END, PAGE, WRITE);
    "E-balloon-report-across", Balloon, "free pages that begin in RAM and end behind it", NeedsReset Answered => || reported(RAM_END - PAGE, 2 * PAGE, WRITE);
    "E-balloon-report-uart", Balloon, "the serial port's registers as free pages", NeedsReset Answered => || reported(0x1000_0000, PAGE, WRITE);
    "E-balloon-report-controller", Balloon, "the interrupt controller as free pages", NeedsReset Answered => || reported(0x0d00_0000, PAGE, WRITE);
    "E-balloon-report-zero", Balloon, "address 0 as a free page", NeedsReset Answered => || reported(0, PAGE, WRITE);
    "E-balloon-report-wraps", Balloon, "free pages whose end wraps around to 0", NeedsReset NeedsReset => || reported(u64::MAX - PAGE + 1, 2 * PAGE, WRITE);
    "E-balloon-report-four-gib", Balloon, "four GiB of free pages", NeedsReset NeedsReset => || reported(SCRATCH, 0xffff_f000, WRITE);
    "E-balloon-statistics", Balloon, "statistics, which are kept until others are wanted", Refused Refused => || statistics(&[0, 1, 2, 3], 40);
    "E-balloon-statistics-unknown", Balloon, "statistics with tags that there are not", Refused Refused => || statistics(&[0xffff, 0x8000, 16, 0xff], 40);
    "E-balloon-statistics-short", Balloon, "nine bytes of statistics", Refused Refused => || statistics(&[0], 9);
    "E-balloon-statistics-nothing", Balloon, "no statistics", Refused NeedsReset => || statistics(&[], 0);
    "E-balloon-statistics-megabyte", Balloon, "24 MiB of statistics", Refused Refused => || inflated(|d| d.chain(STATISTICS, &[(SCRATCH, 24 << 20, 0)]));
    "E-balloon-statistics-writable", Balloon, "statistics in a buffer to be written", Refused Refused => || inflated(|d| d.chain(STATISTICS, &[(d.buffer(DATA), 40, WRITE)]));
    "E-balloon-statistics-nowhere", Balloon, "statistics behind RAM", NeedsReset Refused => || inflated(|d| d.chain(STATISTICS, &[(RAM_END, 40, 0)]));
    "E-balloon-statistics-flood", Balloon, "64 buffers of statistics, where a driver has one", Answered Race => || statistics_flood();
    "E-balloon-without-statistics", Balloon, "the queues of features that were not agreed upon", Refused Answered => || on(raw_balloon().up_with(F_VERSION_1), |d| {d.lay(STATISTICS, &[(d.buffer(DATA), 40, 0)]).offer(STATISTICS, 0).kick(STATISTICS); d.chain(REPORT, &[(SCRATCH, PAGE, WRITE)])});
    "E-balloon-target-written", Balloon, "how much the host wants is overwritten", Refused Refused => || target_written();
    "E-balloon-actual-written", Balloon, "sixteen TiB are said to have been given", Answered Answered => || actual_written();
    "E-balloon-config-beyond", Balloon, "config space of the balloon behind its end", Answered Answered => || inflated(|d| {(8..0x100).step_by(4).for_each(|at| {load32(d.config() + at); store32(d.config() + at, 0xffff_ffff);}); pages(INFLATE, &[SCRATCH >> 12])});
}
