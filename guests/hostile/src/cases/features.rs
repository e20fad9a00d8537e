//! A, rings, the negotiation before them: features and status.

#[cfg(feature = "payload")]
use crate::payload::*;

cases! {
    "A-features-unoffered", Blk, "a feature is accepted that was not offered", Refused Answered => || agreed(raw_blk(), |d| d.offered() | 1 << 63);
    "A-features-all", Blk, "every feature there could be is accepted", Refused Answered => || agreed(raw_blk(), |_| u64::MAX);
    "A-features-none", Blk, "no feature is accepted, not even version 1", Refused Answered => || agreed(raw_blk(), |_| 0);
    "A-features-without-version", Net, "all but version 1", Refused Answered => || agreed(raw_net(), |d| d.offered() & !F_VERSION_1);
    "A-features-of-another-kind", Rng, "features of a disk accepted from the entropy device", Refused Answered => || agreed(raw_rng(), |d| d.offered() | 0x3f);
    "A-features-skipped", Blk, "DRIVER_OK without FEATURES_OK", Refused Answered => || on(raw_blk(), |d| {d.introduce().accept(d.offered() & !F_EVENTS).place_all().write(register::STATUS, S_ACKNOWLEDGE | S_DRIVER | S_DRIVER_OK); flush(d)});
    "A-features-changed-late", Blk, "features that change after FEATURES_OK", Answered Answered => || on(raw_blk(), |d| {d.negotiate(!F_EVENTS).accept(u64::MAX).place_all().go(); flush(d)});
    "A-features-changed-live", Blk, "features that change while the device is live", Answered Answered => || on(blk(), |d| {d.accept(0); flush(d)});
    "A-features-sel-two", Blk, "the third word of features, which there is not", Refused Answered => || on(raw_blk(), |d| Verdict::answered_if(d.write(register::OFFERED_SEL, 2).read(register::OFFERED) != 0));
    "A-features-sel-all-ones", Blk, "word 4,294,967,295 of the features", Refused Answered => || on(raw_blk(), |d| Verdict::answered_if(d.write(register::OFFERED_SEL, 0xffff_ffff).read(register::OFFERED) != 0));
    "A-accept-sel-two", Blk, "a third word of features is accepted, which must not count", Answered Answered => || on(raw_blk(), |d| {d.introduce().accept(d.offered() & !F_EVENTS).write(register::ACCEPTED_SEL, 2).write(register::ACCEPTED, 0xffff_ffff).write(register::STATUS, 11).place_all().go(); flush(d)});
    "A-status-at-once", Blk, "all of the status in one write", Answered Answered => || on(raw_blk(), |d| {d.reset().accept(d.offered() & !F_EVENTS).write(register::STATUS, S_LIVE); Verdict::answered_if(d.status() == S_LIVE)});
    "A-status-all-ones", Blk, "every bit of the status is set", Refused Answered => || on(raw_blk(), |d| {d.introduce().write(register::STATUS, 0xff); Verdict::answered_if(d.status() == 0xff)});
    "A-status-upper-bits", Blk, "bits of the status that there are not", Refused Refused => || on(blk(), |d| {d.write(register::STATUS, 0xffff_ff0f); Verdict::answered_if(d.status() > 0xff)});
    "A-status-bits-cleared", Blk, "bits of the status are taken back without a reset", Refused Answered => || on(blk(), |d| {d.write(register::STATUS, S_ACKNOWLEDGE); Verdict::answered_if(d.status() == S_ACKNOWLEDGE)});
    "A-status-needs-reset", Blk, "the driver itself says that the device needs a reset", Refused Answered => || on(blk(), |d| {d.write(register::STATUS, S_LIVE | S_NEEDS_RESET); Verdict::answered_if(d.status() & S_NEEDS_RESET != 0)});
    "A-status-failed-goes-on", Blk, "a driver that has given up sends a request", Refused Answered => || on(blk(), |d| {d.write(register::STATUS, S_LIVE | S_FAILED); flush(d)});
    "A-status-driver-first", Blk, "DRIVER without ACKNOWLEDGE", Answered Answered => || on(raw_blk(), |d| Verdict::answered_if(d.reset().write(register::STATUS, S_DRIVER).status() == S_DRIVER));
    "A-status-driver-ok-twice", Blk, "DRIVER_OK a hundred times with a request under way", Answered Answered => || on(blk(), |d| {full_of_reads(d).kick(0); (0..100).for_each(|_| {d.go();}); d.wait_for(0, 1)});
}
