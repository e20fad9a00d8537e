//! A guest that has booted and now idles: what it costs in memory and in exits.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::report::Figure;
use super::{CMDLINE, MARKER, System, exits, memory};
use crate::host::Host;
use crate::lab::{Lab, Setup};
use crate::profile::Profile;
use crate::session::Session;

/// RAM of the guest.
const MEMORY_MIB: u32 = 128;

const SYSTEMS: [System; 2] = [System::Rvmm, System::QemuKvm];

/// How long a guest that stands at its init is left alone before it is looked at: until then rvmm holds what the boot needed.
const IDLE: &str = "15";

/// How long a boot may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);

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
    let exits = exits::counts(lab)?;
    pass_time(lab)?;
    Ok([
        Figure::bytes(
            "rss-besides-guest-ram",
            system,
            guest.besides_ram(lab, MEMORY_MIB)?,
        ),
        Figure::count("exits-per-boot", system, exits.all),
        Figure::count("user-exits-per-boot", system, exits.to_user),
    ])
}

/// Lets guests idle for a while.
pub(super) fn pass_time(lab: &Lab) -> Result<()> {
    lab.run(&["sleep", IDLE])?.ok()?;
    Ok(())
}

/// A guest at its init. It ends with its session.
pub(super) struct Idle {
    pid: String,
    _session: Session,
}

impl Idle {
    pub(super) fn start(lab: &Lab, system: System, memory_mib: u32) -> Result<Self> {
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

    /// Bytes that its VMM holds besides its RAM.
    pub(super) fn besides_ram(&self, lab: &Lab, memory_mib: u32) -> Result<u64> {
        let smaps = lab.run(&["cat", &format!("/proc/{}/smaps", self.pid)])?.ok()?;
        memory::besides_guest_ram(&smaps, memory_mib)
    }
}
