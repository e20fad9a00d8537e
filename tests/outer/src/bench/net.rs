//! A network card on a tap: virtual time for each MiB both ways, and for a question and its answer.
//!
//! Frames go through the VMM, on both sides, or through the host's kernel (vhost-net), and the card is on PCI; the other end of the connection
//! is the host's own kernel. As the lab has one processor and it is never idle meanwhile, this is all that guest, VMM and host do for it together.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rvm_guests::{Cache, cross};

use super::guest::{self, Step};
use super::report::Figure;
use super::{CMDLINE, IN_KERNEL, System};
use crate::lab::Setup;
use crate::profile::Profile;

const SYSTEMS: [System; 2] = [System::Rvmm, System::QemuKvm];

const PATIENCE: Duration = Duration::from_secs(2400);

const MIB: f64 = 1_048_576.0;

const INITRD: &str = "lab/net.cpio";

const UP: &str = "ip link set lo up; ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up\n\
    probe ask-tcp 10.9.0.1:7 100 >/dev/null; probe send-tcp 10.9.0.1:7 1048576 >/dev/null";

/// What is done, in this order. Two clients went before.
const STEPS: [Step; 3] = [
    ("send", "probe send-tcp 10.9.0.1:7 33554432"),
    ("receive", "probe receive-tcp 10.9.0.1:7 33554432"),
    ("round-trip", "probe ask-tcp 10.9.0.1:7 2000"),
];

/// Who moves the frames: a word for it, and whether it is the host's kernel.
const MOVERS: [(&str, bool); 2] = [("tap", false), ("vhost", true)];

/// Rows of the results: who moves the frames, step, and for how many of what it counts.
const ROWS: [(&str, &str, &str, f64); 6] = [
    ("net-send", "tap", "send", MIB),
    ("net-receive", "tap", "receive", MIB),
    ("net-round-trip", "tap", "round-trip", 1.0),
    ("net-vhost-send", "vhost", "send", MIB),
    ("net-vhost-receive", "vhost", "receive", MIB),
    ("net-vhost-round-trip", "vhost", "round-trip", 1.0),
];

/// Runs the guest on each system in one lab.
pub fn measure(cache: &Cache, rvmm: &Path) -> Result<Vec<Figure>> {
    let probe = cross::program(cache, "rvm-guest-init", "rvm-guest-probe")?;
    let said = Setup::new(Profile::COUNTING)
        .program(rvmm)
        .program(probe)
        .file(
            INITRD,
            0o644,
            guest::initrd(cache, &guest::init(UP, &STEPS), &[])?,
        )
        .job(&job(), PATIENCE)?;
    let times = guest::parse(&said)?;
    let figure = |(row, mover, step, of): (&'static str, &str, &str, f64), system: System| {
        let nanos = times.get(&(system, mover.to_owned(), step.to_owned()));
        let nanos = nanos.with_context(|| format!("no {row} of {} in:\n{said}", system.name()))?;
        Figure::seconds(row, system, &[nanos * of / 1e9]).context("one value has a middle")
    };
    let cells = ROWS
        .into_iter()
        .flat_map(|row| SYSTEMS.map(|system| (row, system)));
    cells.map(|(row, system)| figure(row, system)).collect()
}

/// The host's: a tap with an address, a server behind it, and each system in turn. The shell's own `ip` knows no taps.
fn job() -> String {
    let mut script = "#!/bin/sh\n\
        /usr/bin/ip tuntap add dev tap0 mode tap vnet_hdr\n\
        /usr/bin/ip addr add 10.9.0.1/24 dev tap0\n\
        /usr/bin/ip link set tap0 up\n"
        .to_owned();
    for ((mover, vhost), system) in MOVERS
        .into_iter()
        .flat_map(|mover| SYSTEMS.map(|system| (mover, system)))
    {
        let vhost = if vhost { "on" } else { "off" };
        let device = match system {
            System::QemuKvm => {
                format!(
                    "{IN_KERNEL} -netdev tap,id=net,ifname=tap0,script=no,downscript=no,vhost={vhost} -device virtio-net-pci,netdev=net,romfile="
                )
            }
            System::Rvmm | System::Bare | System::Tools => {
                format!("--transport pci --net tap=tap0,vhost={vhost}")
            }
        };
        let command = system.command_with(&format!("/{INITRD}"), 1, 256, CMDLINE, &device);
        let _ = writeln!(
            script,
            "rvm-guest-probe serve-tcp 10.9.0.1:7 {} &\necho SYSTEM {} {mover}\n{command} </dev/null\nkill $! 2>/dev/null; wait",
            STEPS.len() + 2,
            system.name()
        );
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_a_step() {
        assert!(ROWS.iter().all(|(row, mover, step, _)| row.ends_with(step)
            && STEPS.iter().any(|(name, _)| name == step)
            && MOVERS.iter().any(|(name, _)| name == mover)));
    }
}
