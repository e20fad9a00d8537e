//! Boots under KVM, timed inside the lab by the clock that counts instructions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::report::Figure;
use super::{CMDLINE, MARKER, System};
use crate::lab::Setup;
use crate::profile::Profile;

/// How often each system is booted, in turn. Where the guest's kernel lies in its memory is random, and moves a boot by a
/// few per cent; the middle of five is steady.
const ROUNDS: usize = 5;

const MEMORY_MIB: u32 = 256;

const SYSTEMS: [System; 2] = [System::Rvmm, System::QemuKvm];

/// The lab takes a minute or two of a whole CPU; other work on the machine stretches that.
const PATIENCE: Duration = Duration::from_secs(1800);

/// With how many vCPUs, and what the rows are called then.
pub(super) const BOOTS: [(u32, [&str; 2]); 2] = [
    (1, ["boot-exec-to-init", "boot-exec-to-exit"]),
    (4, ["boot-exec-to-init-4-vcpus", "boot-exec-to-exit-4-vcpus"]),
];

const FIRST_RUN: &str = "exec-to-first-kvm-run";

/// Times in seconds, of each row and system.
type Times = BTreeMap<(&'static str, System), Vec<f64>>;

/// Boots each system in one lab and returns the rows of boots.
pub fn measure(rvmm: &Path) -> Result<Vec<Figure>> {
    let said = Setup::new(Profile::COUNTING)
        .program(rvmm)
        .job(&job(), PATIENCE)?;
    let times = parse(&said).with_context(|| format!("the lab said:\n{said}"))?;
    let figures = rows().flat_map(|row| SYSTEMS.map(|system| (row, system)));
    Ok(figures
        .filter_map(|(row, system)| Figure::seconds(row, system, times.get(&(row, system))?))
        .collect())
}

/// All rows, in the order of the table.
fn rows() -> impl Iterator<Item = &'static str> {
    [FIRST_RUN]
        .into_iter()
        .chain(BOOTS.into_iter().flat_map(|(_, rows)| rows))
}

fn job() -> String {
    let mut script = "#!/bin/sh\n".to_owned();
    for _ in 0..ROUNDS {
        for system in SYSTEMS {
            let command = |cpus| system.command(cpus, MEMORY_MIB, CMDLINE);
            let _ = writeln!(script, "echo SYSTEM {}", system.name());
            let _ = writeln!(script, "rvm-lab-agent first-entry -- {}", command(1));
            for (cpus, _) in BOOTS {
                let _ = writeln!(script, "echo VCPUS {cpus}");
                let _ = writeln!(
                    script,
                    "rvm-lab-agent measure --marker {MARKER} -- {}",
                    command(cpus)
                );
            }
        }
    }
    script
}

/// Reads what the job has said over the serial line.
fn parse(said: &str) -> Result<Times> {
    let mut times = Times::new();
    let (mut system, mut boot) = (None, None);
    for line in said.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("SYSTEM ") {
            system = SYSTEMS.into_iter().find(|system| system.name() == name);
        } else if let Some(cpus) = line.strip_prefix("VCPUS ") {
            boot = BOOTS.into_iter().find(|(of, _)| of.to_string() == cpus);
        } else if let Some(said) = measured(line) {
            let system = system.context("a time without a system")?;
            let rows = match said {
                Said::Entered(_) => vec![FIRST_RUN],
                Said::Booted(_) => boot.context("a boot without its vCPUs")?.1.to_vec(),
            };
            for (row, nanos) in rows.into_iter().zip(said.nanos()) {
                let seconds = Duration::from_nanos(nanos).as_secs_f64();
                times.entry((row, system)).or_default().push(seconds);
            }
        }
    }
    for (row, system) in rows().flat_map(|row| SYSTEMS.map(|system| (row, system))) {
        let runs = times.get(&(row, system)).map_or(0, Vec::len);
        ensure!(
            runs == ROUNDS,
            "{row}: {} ended well {runs} times of {ROUNDS}",
            system.name()
        );
    }
    Ok(times)
}

/// What the agent has measured, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// To the first entry into the guest.
    Entered(u64),
    /// To the marker, and to the end.
    Booted([u64; 2]),
}

impl Said {
    fn nanos(self) -> Vec<u64> {
        match self {
            Self::Entered(nanos) => vec![nanos],
            Self::Booted(both) => both.to_vec(),
        }
    }
}

/// The lines that `rvm-lab-agent measure` and `first-entry` print.
fn measured(line: &str) -> Option<Said> {
    if let Some(entered) = line.strip_prefix("ENTERED first_entry_ns=") {
        return entered.parse().ok().map(Said::Entered);
    }
    let mut fields = line.strip_prefix("MEASURED ")?.split(' ');
    let marker = fields.next()?.strip_prefix("marker_ns=")?.parse().ok()?;
    let exit = fields.next()?.strip_prefix("exit_ns=")?.parse().ok()?;
    Some(Said::Booted([marker, exit]))
}

#[cfg(test)]
mod tests {
    use rvm_outer_agent::measure::Measured;

    use super::*;

    #[test]
    fn what_the_agent_prints_is_what_is_read() {
        let line = Measured {
            to_marker: Duration::from_nanos(1_700_000_000),
            to_exit: Duration::from_nanos(1_800_000_000),
            clean: true,
        }
        .to_string();
        assert_eq!(
            measured(&line),
            Some(Said::Booted([1_700_000_000, 1_800_000_000]))
        );
    }

    const ROUND: &str = "noise\nSYSTEM rvmm\nENTERED first_entry_ns=500\n\
        VCPUS 1\nMEASURED marker_ns=1000 exit_ns=2000\r\nVCPUS 4\nMEASURED marker_ns=3000 exit_ns=4000\n\
        SYSTEM qemu-kvm\nENTERED first_entry_ns=600\n\
        VCPUS 1\nMEASURED marker_ns=5000 exit_ns=6000\nVCPUS 4\nMEASURED marker_ns=7000 exit_ns=8000\n";

    #[test]
    fn times_go_to_the_system_and_the_boot_that_were_named_before_them() {
        let times = parse(&ROUND.repeat(ROUNDS)).unwrap();
        assert_eq!(times[&(FIRST_RUN, System::Rvmm)], [500e-9; ROUNDS]);
        assert_eq!(times[&("boot-exec-to-init", System::Rvmm)], [1e-6; ROUNDS]);
        assert_eq!(
            times[&("boot-exec-to-exit-4-vcpus", System::QemuKvm)],
            [8e-6; ROUNDS]
        );
    }

    #[test]
    fn a_system_that_failed_once_is_an_error_and_not_a_shorter_list() {
        let said = ROUND
            .repeat(ROUNDS)
            .replacen("MEASURED", "rvm-lab-agent: it failed", 1);
        assert_eq!(
            parse(&said).unwrap_err().to_string(),
            "boot-exec-to-init: rvmm ended well 4 times of 5"
        );
    }
}
