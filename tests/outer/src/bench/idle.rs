//! A guest that has booted and now idles: what it costs in memory and in exits.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::report::Figure;
use super::{CMDLINE, MARKER, System, memory};
use crate::host::Host;
use crate::lab::{Lab, Setup};
use crate::profile::Profile;
use crate::session::Session;

/// RAM of the guest.
const MEMORY_MIB: u32 = 128;

const SYSTEMS: [System; 2] = [System::Rvmm, System::QemuKvm];

/// How long a boot may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// KVM's counts, over all VMs that live; user space is entered for the second.
const EXITS: &str = "/sys/kernel/debug/kvm/exits";
const EXITS_TO_USER: [&str; 3] = [
    "/sys/kernel/debug/kvm/mmio_exit_user",
    "/sys/kernel/debug/kvm/csr_exit_user",
    "/sys/kernel/debug/kvm/signal_exits",
];

/// Starts each system in a lab of its own.
pub fn measure(rvmm: &Path) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for system in SYSTEMS {
        // A lab for each: what one leaves in the page cache must not help the other.
        let lab = Setup::new(Profile::PEER).program(rvmm).start()?;
        figures.extend(one(&lab, system).with_context(|| format!("one {}", system.name()))?);
    }
    Ok(figures)
}

fn one(lab: &Lab, system: System) -> Result<[Figure; 3]> {
    let guest = Idle::start(lab, system, MEMORY_MIB)?;
    let user = EXITS_TO_USER
        .iter()
        .map(|file| count(lab, file))
        .sum::<Result<u64>>()?;
    Ok([
        Figure::bytes(
            "rss-besides-guest-ram",
            system,
            guest.besides_ram(lab, MEMORY_MIB)?,
        ),
        Figure::count("exits-per-boot", system, count(lab, EXITS)?),
        Figure::count("user-exits-per-boot", system, user),
    ])
}

fn count(lab: &Lab, file: &str) -> Result<u64> {
    let text = lab.run(&["cat", file])?.ok()?;
    text.trim()
        .parse()
        .with_context(|| format!("{file} says {text:?}"))
}

/// A guest at its init. It ends with its session.
struct Idle {
    pid: String,
    _session: Session,
}

impl Idle {
    fn start(lab: &Lab, system: System, memory_mib: u32) -> Result<Self> {
        let command = system.command(1, memory_mib, &format!("{CMDLINE} rvm.run=idle"));
        let mut session = lab.spawn(&["sh", "-c", &format!("echo pid $$; exec {command}")])?;
        session.expect("pid ", PATIENCE)?;
        let pid = session.expect("\n", PATIENCE)?.trim().to_owned();
        session.expect(MARKER, PATIENCE)?;
        Ok(Self {
            pid,
            _session: session,
        })
    }

    fn besides_ram(&self, lab: &Lab, memory_mib: u32) -> Result<u64> {
        let smaps = lab.run(&["cat", &format!("/proc/{}/smaps", self.pid)])?.ok()?;
        memory::besides_guest_ram(&smaps, memory_mib)
    }
}
