//! Bodies of tests that kill a handler or a machine with SIGKILL at any moment of a start.
//!
//! A moment is no time, which would depend on how busy this host is: it is a number of changes of what lies in the handler's
//! folders. Handler, store, images, disks, run directory, rvmm and QEMU make some dozen of them, down to the guest's
//! first word. Moments and victims come from a seed, which is printed, and is taken from `RVM_SEED` where that is set.

use std::collections::BTreeSet;
use std::env;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Handler, Kubectl, Manifest, PATIENCE, kill};

/// More changes than a start makes: some rounds kill after the guest's first word.
const CHANGES: u64 = 32;

/// The VMI of all rounds.
const NAME: &str = "victim";

/// How a round goes.
struct Round {
    changes: u64,
    /// The machine, if there is one by then; else the handler.
    machine: bool,
}

/// Kills so many starts of a VMI in as many rounds. After each, the start is done with or tried again without more, and when the
/// VMI is deleted, nothing is left.
///
/// # Errors
/// What was not so, and the seed.
pub fn starts_survive(handler: &mut Handler, vmi: &Manifest, rounds: u64) -> Result<()> {
    let given = env::var("RVM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| RandomState::new().hash_one(rounds));
    println!("RVM_SEED={seed}");
    let vmi = vmi.clone().named(NAME);
    for number in 0..rounds {
        let round = Round::of(seed, number);
        println!("round {number}: after {} changes", round.changes);
        let about = || format!("RVM_SEED={seed}, round {number}, {} changes", round.changes);
        round.play(handler, &vmi).with_context(about)?;
    }
    Ok(())
}

// === impl Round ===

impl Round {
    /// Neighbours in number have nothing in common: the mixer of SplitMix64.
    fn of(seed: u64, number: u64) -> Self {
        let mut mixed = seed.wrapping_add((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        Self {
            changes: (mixed >> 1) % CHANGES,
            machine: mixed & 1 == 1,
        }
    }

    fn play(&self, handler: &mut Handler, vmi: &Manifest) -> Result<()> {
        let kubectl = handler.kubectl()?;
        let machine = thread::scope(|scope| {
            // In local mode its server may die with the handler, before it has answered.
            let applied = scope.spawn(|| kubectl.apply(std::slice::from_ref(vmi)));
            self.await_moment(handler)?;
            let machine = self.machine.then(|| machine_of(handler)).flatten();
            match machine {
                Some(pid) => kill(pid)?,
                None => handler.kill()?,
            }
            drop(applied.join());
            Ok::<_, anyhow::Error>(machine)
        })?;
        println!("killed {}", machine.map_or("the handler", |_| "the machine"));
        if machine.is_none() {
            handler.start()?;
        }
        let kubectl = handler.kubectl()?;
        kubectl.apply(std::slice::from_ref(vmi))?;
        if machine.is_some() {
            kubectl.await_phase(NAME, "Failed")?;
            remove(handler, &kubectl)?;
            kubectl.apply(std::slice::from_ref(vmi))?;
        }
        kubectl.await_phase(NAME, "Running")?;
        remove(handler, &kubectl)
    }

    /// Looks as often as it can until so much has changed, or the guest speaks.
    fn await_moment(&self, handler: &Handler) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let (mut seen, mut changes) = (handler.paths()?, 0);
        while changes < self.changes && !speaks(&seen) {
            let now = handler.paths()?;
            changes += u64::from(now != seen);
            seen = now;
            if Instant::now() > until {
                bail!("only {changes} changes, and no guest: {seen:?}");
            }
        }
        Ok(())
    }
}

/// Whether a machine's console has been written.
fn speaks(paths: &BTreeSet<PathBuf>) -> bool {
    let mut logs = paths.iter().filter(|path| path.ends_with("console.log"));
    logs.any(|log| log.metadata().is_ok_and(|log| log.len() > 0))
}

/// The only machine's process, if one has come so far.
fn machine_of(handler: &Handler) -> Option<u32> {
    let names = handler.run_dir_entries().ok()?;
    names.iter().find_map(|uid| handler.pid(uid).ok())
}

/// Deletes the VMI, and waits until nothing is left of it.
fn remove(handler: &Handler, kubectl: &Kubectl) -> Result<()> {
    kubectl.ok(&["delete", "vmi", NAME, "--timeout=240s"])?;
    eventually("end of all that the machine had", || {
        let left = handler.leavings()?;
        Ok(Look::of(left.is_empty().then_some(()), || left.join("\n")))
    })
}
