//! Disks: virtual time for each MiB that a guest moves, and exits for each request.
//!
//! Guest and disk are the same for both systems: 1 vCPU, 256 MiB, a disk of 32 MiB on the host's tmpfs. The guest first
//! reads the whole disk, so that its memory has been touched; it then writes it once through its cache and syncs it, reads
//! it through its cache, and reads and writes 4 MiB past its cache. The qcow2 image is empty before the first write.
//! What the guest's own kernel does of it, on a disk that takes and gives nothing, is the floor: the `bare` of these rows.
//! Both have their disk on PCI. QEMU gets what makes it fastest here: the interrupt controller that KVM has in the kernel, a
//! thread of the disk's own, and its threads for requests (`aio=threads`; io_uring was slower).

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rvm_guests::Cache;

use super::guest::{self, Step};
use super::report::Figure;
use super::{CMDLINE, IN_KERNEL, System, exits};
use crate::host::Host;
use crate::lab::{Lab, Setup};
use crate::profile::Profile;
use crate::qcow2;

const SYSTEMS: [System; 2] = [System::Rvmm, System::QemuKvm];

/// Each takes some minutes; other work on the machine stretches that.
const PATIENCE: Duration = Duration::from_secs(2400);

const DISK: u64 = 32 << 20;
const MIB: f64 = 1_048_576.0;

const INITRD: &str = "lab/block.cpio";
const ALONE: &str = "lab/alone.cpio";
const EMPTY: &str = "lab/empty.qcow2";

/// Touches the guest's memory.
const WARM: &str = "probe read /dev/vda 131072 256 >/dev/null";
/// The same, with a disk of the kernel's that is done with each request at once.
const NULL: &str = "for module in /more/*; do insmod $module irqmode=0 gb=1; done\n\
    probe read /dev/nullb0 131072 256 >/dev/null";

/// What is done, in this order.
const STEPS: [Step; 6] = [
    ("write-128k", "probe write /dev/vda 131072 256"),
    ("read-128k", "probe read /dev/vda 131072 256"),
    ("write-128k-direct", "probe write-direct /dev/vda 131072 256"),
    ("read-128k-direct", "probe read-direct /dev/vda 131072 256"),
    ("read-4k", "probe read-direct /dev/vda 4096 1024"),
    ("write-4k", "probe write-direct /dev/vda 4096 1024"),
];

/// Rows of the results: format and step.
const ROWS: [(&str, &str, &str); 12] = [
    ("block-raw-write-128k", "raw", "write-128k"),
    ("block-raw-read-128k", "raw", "read-128k"),
    ("block-raw-write-128k-direct", "raw", "write-128k-direct"),
    ("block-raw-read-128k-direct", "raw", "read-128k-direct"),
    ("block-raw-read-4k", "raw", "read-4k"),
    ("block-raw-write-4k", "raw", "write-4k"),
    ("block-qcow2-write-128k", "qcow2", "write-128k"),
    ("block-qcow2-read-128k", "qcow2", "read-128k"),
    ("block-qcow2-write-128k-direct", "qcow2", "write-128k-direct"),
    ("block-qcow2-read-128k-direct", "qcow2", "read-128k-direct"),
    ("block-qcow2-read-4k", "qcow2", "read-4k"),
    ("block-qcow2-write-4k", "qcow2", "write-4k"),
];

/// Requests whose exits are counted.
const REQUESTS: u32 = 4096;
const COUNTED: [Step; 1] = [("read-4k", "probe read-direct /dev/vda 4096 4096")];

/// Runs the guest on each system and format in one lab and returns a row for each format and step.
pub fn measure(cache: &Cache, rvmm: &Path) -> Result<Vec<Figure>> {
    let init = guest::init(WARM, &STEPS);
    let alone = STEPS.map(|(step, what)| (step, what.replace("vda", "nullb0")));
    let said = Setup::new(Profile::COUNTING)
        .program(rvmm)
        .file(INITRD, 0o644, guest::initrd(cache, &init, &[])?)
        .file(
            ALONE,
            0o644,
            guest::initrd(cache, &guest::init(NULL, &alone), &["null_blk"])?,
        )
        .file(EMPTY, 0o644, qcow2::empty(DISK))
        .job(&job(), PATIENCE)?;
    let times = guest::parse(&said)?;
    let figure = |(row, format, step): (&'static str, &str, &str), system: System| {
        let nanos = times.get(&(system, format.to_owned(), step.to_owned()));
        let nanos = nanos.with_context(|| format!("no {row} of {} in:\n{said}", system.name()))?;
        Figure::seconds(row, system, &[nanos * MIB / 1e9]).context("one value has a middle")
    };
    let cells = ROWS
        .into_iter()
        .flat_map(|row| System::ALL.map(|system| (row, system)));
    // The guest alone has no format.
    cells
        .filter(|((_, format, _), system)| *system != System::Bare || *format == "raw")
        .map(|(row, system)| figure(row, system))
        .collect()
}

/// Counts the exits while a guest reads blocks one by one, past its cache.
pub fn count(cache: &Cache, rvmm: &Path) -> Result<Vec<Figure>> {
    let initrd = guest::initrd(cache, &guest::obedient(&COUNTED), &[])?;
    let disk = vec![0; usize::try_from(DISK)?];
    let mut figures = Vec::new();
    for system in SYSTEMS {
        let lab = Setup::new(Profile::PEER)
            .program(rvmm)
            .file(INITRD, 0o644, initrd.as_slice())
            .start()?;
        lab.put("/tmp/disk", &disk)?;
        figures.extend(counted(&lab, system).with_context(|| format!("requests of {}", system.name()))?);
    }
    Ok(figures)
}

fn counted(lab: &Lab, system: System) -> Result<[Figure; 2]> {
    let mut guest = lab.spawn(&["sh", "-c", &command(system, "raw")])?;
    guest.expect("READY", PATIENCE)?;
    let before = exits::counts(lab)?;
    guest.send("\n")?;
    guest.expect("moved ", PATIENCE)?;
    let after = exits::counts(lab)?;
    let each = |row, count: u64| Figure::ratio(row, system, count, REQUESTS);
    Ok([
        each("exits-per-block-request", after.all - before.all),
        each("user-exits-per-block-request", after.to_user - before.to_user),
    ])
}

/// The host's: each system with each format, from a disk that is new.
fn job() -> String {
    let alone = System::Rvmm.command_with(&format!("/{ALONE}"), 1, 256, CMDLINE, "");
    let mut script = format!("#!/bin/sh\necho SYSTEM bare raw\n{alone} </dev/null\n");
    for format in ["raw", "qcow2"] {
        for system in SYSTEMS {
            let make = match format {
                "raw" => "dd if=/dev/zero of=/tmp/disk bs=1M count=32 2>/dev/null".to_owned(),
                _ => format!("cp /{EMPTY} /tmp/disk"),
            };
            let command = command(system, format);
            let _ = writeln!(
                script,
                "{make}\necho SYSTEM {} {format}\n{command} </dev/null\nrm /tmp/disk",
                system.name()
            );
        }
    }
    script
}

fn command(system: System, format: &str) -> String {
    let device = match system {
        System::QemuKvm => {
            format!(
                "{IN_KERNEL} -object iothread,id=io -drive file=/tmp/disk,format={format},if=none,id=disk \
                 -device virtio-blk-pci,drive=disk,iothread=io"
            )
        }
        System::Rvmm | System::Bare | System::Tools => {
            format!("--transport pci --disk /tmp/disk,format={format}")
        }
    };
    system.command_with(&format!("/{INITRD}"), 1, 256, CMDLINE, &device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_a_step() {
        assert!(
            ROWS.iter()
                .all(|(row, format, step)| *row == format!("block-{format}-{step}"))
        );
        assert!(
            ROWS.iter()
                .all(|(.., step)| STEPS.iter().any(|(name, _)| name == step))
        );
    }
}
