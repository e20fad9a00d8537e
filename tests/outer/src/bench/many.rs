//! Twenty guests at once in one lab: all reach their init, and this is what they cost besides their RAM.
//!
//! They are started one after the other, since two processors emulate it all, and live until the last has been looked at.
//! Nothing merges their pages: KSM is off.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::System;
use super::idle::{Idle, pass_time};
use super::report::Figure;
use crate::host::Host;
use crate::lab::Setup;
use crate::profile::Profile;

const GUESTS: u32 = 20;

/// RAM of a guest: the least that a stock kernel starts in with ease.
const MEMORY_MIB: u32 = 128;

/// RAM of the lab: more than that of all guests.
const LAB_MIB: u32 = 4096;

/// What KSM does; 0 is nothing. A kernel without it has no such file.
const KSM: &str = "cat /sys/kernel/mm/ksm/run 2>/dev/null || echo 0";

/// Starts them, and adds up what their VMMs hold.
pub fn measure(rvmm: &Path) -> Result<Vec<Figure>> {
    let host = Profile {
        memory_mib: LAB_MIB,
        ..Profile::AIA
    };
    let lab = Setup::new(host).program(rvmm).start()?;
    let merging = lab.run(&["sh", "-c", KSM])?.ok()?;
    ensure!(merging.trim() == "0", "the lab's kernel merges pages: {merging}");
    let start = |number| {
        Idle::start(&lab, System::Rvmm, MEMORY_MIB).with_context(|| format!("guest {number} of {GUESTS}"))
    };
    let guests = (1..=GUESTS).map(start).collect::<Result<Vec<_>>>()?;
    pass_time(&lab)?;
    // Each is looked at while all are alive.
    let besides = guests.iter().map(|guest| guest.besides_ram(&lab, MEMORY_MIB));
    let bytes = besides.sum::<Result<u64>>()?;
    Ok(vec![
        Figure::count("guests-at-once", System::Rvmm, guests.len() as u64),
        Figure::bytes("rss-besides-guest-ram-of-all", System::Rvmm, bytes),
    ])
}
