//! The floor: the same kernel and initramfs on the outer machine itself, timed from its reset.
//!
//! In a first boot the guest says how the kernel's clock and the machine's counter stand to each other; in the others it
//! does as always, but says its first words through the kernel's log, which stamps them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rvm_guests::cpio::{Archive, Device};
use rvm_guests::{Cache, Kernel, bench, cross};

use super::report::Figure;
use super::timing::BOOTS;
use super::{CMDLINE, MARKER, System};
use crate::emulator::{Emulator, Network, Start};
use crate::image::write_with;
use crate::profile::Profile;

const PATIENCE: Duration = Duration::from_secs(900);

/// How often the machine's counter ticks in a second.
const TICKS: f64 = 1e7;

/// One boot for each seed, as many as the guests get.
const SEEDS: [u32; 5] = [1, 2, 3, 4, 5];

/// The measured guest's init, its first words stamped.
const STAMPED: &str = r#"#!/bin/sh
/bin/busybox mount -t proc proc /proc
echo "<0>GUEST-UP" >/dev/kmsg
read -r line </proc/cmdline
/bin/busybox poweroff -f
"#;

/// Says the machine's counter in a line that is stamped at once.
const COUNTER: &str = r#"#!/bin/sh
/bin/busybox mount -t proc proc /proc
echo 8 >/proc/sys/kernel/printk
/bin/probe vdso >/dev/kmsg
/bin/busybox poweroff -f
"#;

/// Boots the machine a few times, with each number of processors, and returns the rows of boots.
pub fn measure(cache: &Cache) -> Result<Vec<Figure>> {
    let rows = BOOTS
        .into_iter()
        .map(|(cpus, rows)| boots(cache, u8::try_from(cpus)?, rows));
    Ok(rows.collect::<Result<Vec<_>>>()?.concat())
}

fn boots(cache: &Cache, cpus: u8, rows: [&'static str; 2]) -> Result<Vec<Figure>> {
    let said = boot(cache, cpus, SEEDS[0], COUNTER)?;
    let before =
        before_kernel_clock(&said).with_context(|| format!("no counter in what it said:\n{said}"))?;
    let mut runs = (Vec::new(), Vec::new());
    for seed in SEEDS {
        let said = boot(cache, cpus, seed, STAMPED)?;
        let stamp =
            |words| stamp_of(&said, words).with_context(|| format!("no {words:?} in what it said:\n{said}"));
        runs.0.push(before + stamp(MARKER)?);
        runs.1.push(before + stamp("reboot: Power down")?);
    }
    Ok(rows
        .into_iter()
        .zip([runs.0, runs.1])
        .filter_map(|(row, runs)| Figure::seconds(row, System::Bare, &runs))
        .collect())
}

/// Boots the outer machine, as small as a guest, and returns what it said.
fn boot(cache: &Cache, cpus: u8, seed: u32, init: &str) -> Result<String> {
    let machine = Profile {
        cpus,
        memory_mib: 256,
        counting: Some(seed),
        ..Profile::COUNTING
    };
    let probe = cross::program(cache, "rvm-guest-init", "rvm-guest-probe")?;
    let mut overlay = Archive::new();
    overlay
        .file("init", 0o755, init)
        .file_from("bin/probe", 0o755, &probe)
        .device("dev/kmsg", 0o600, Device::Character(1, 11));
    let folder = tempfile::Builder::new().prefix("rvm-bare-").tempdir()?;
    let initrd = folder.path().join("initrd");
    write_with(&bench::build(cache)?, &overlay, &initrd)?;
    let kernel = Kernel::debian(cache)?.image;
    let start = Start {
        profile: &machine,
        kernel: &kernel,
        initrd: Path::new(&initrd),
        cmdline: CMDLINE,
        disk: None,
        network: Network::Ports(&[]),
    };
    Emulator::start(cache, &start, folder)?.wait_for_end(PATIENCE)
}

/// What the machine did before the kernel's clock started: firmware, and the kernel's first steps.
fn before_kernel_clock(said: &str) -> Option<f64> {
    let counter = said.lines().find_map(|line| line.split_once("rdtime="))?.1;
    let counter: f64 = counter.split_whitespace().next()?.parse().ok()?;
    Some(counter / TICKS - stamp_of(said, "rdtime=")?)
}

/// The kernel's clock on the line that holds `words`: `[    1.660512] words`.
fn stamp_of(said: &str, words: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.contains(words))?;
    let (stamp, _) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    stamp.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_before_the_kernels_clock_is_the_counter_less_its_stamp() {
        let said = "OpenSBI v1.6\n[    1.660000] vdso ok clock=1659000000 rdtime=17100000\n";
        let before = before_kernel_clock(said).unwrap();
        assert!((before - 0.05).abs() < 1e-9, "{before}");
    }

    #[test]
    fn a_boot_that_did_not_get_that_far_has_no_stamps() {
        assert_eq!(before_kernel_clock("[    1.650000] Kernel panic\n"), None);
        assert_eq!(stamp_of("reboot: Power down", "Power down"), None);
        assert_eq!(stamp_of("[    1.650000] Kernel panic\n", "panic"), Some(1.65));
    }
}
