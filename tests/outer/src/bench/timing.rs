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

/// Times of each system, in nanoseconds: to the marker, and to the end.
type Times = BTreeMap<System, Vec<(u64, u64)>>;

/// Boots each system in one lab and returns the two boot rows.
pub fn measure(rvmm: &Path) -> Result<Vec<Figure>> {
    let said = Setup::new(Profile::COUNTING)
        .program(rvmm)
        .job(&job(), PATIENCE)?;
    let times = parse(&said).with_context(|| format!("the lab said:\n{said}"))?;
    let row = |name, pick: fn(&(u64, u64)) -> u64| {
        times.iter().filter_map(move |(system, runs)| {
            let seconds: Vec<f64> = runs
                .iter()
                .map(|run| Duration::from_nanos(pick(run)).as_secs_f64())
                .collect();
            Figure::seconds(name, *system, &seconds)
        })
    };
    Ok(row("boot-exec-to-init", |run| run.0)
        .chain(row("boot-exec-to-exit", |run| run.1))
        .collect())
}

fn job() -> String {
    let mut script = "#!/bin/sh\n".to_owned();
    for _ in 0..ROUNDS {
        for system in SYSTEMS {
            let command = system.command(MEMORY_MIB, CMDLINE);
            let _ = writeln!(script, "echo SYSTEM {}", system.name());
            let _ = writeln!(script, "rvm-lab-agent measure --marker {MARKER} -- {command}");
        }
    }
    script
}

/// Reads what the job has said over the serial line.
fn parse(said: &str) -> Result<Times> {
    let mut times = Times::new();
    let mut of = None;
    for line in said.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("SYSTEM ") {
            of = SYSTEMS.into_iter().find(|system| system.name() == name);
        } else if let Some((marker, exit)) = measured(line) {
            times
                .entry(of.context("a time without a system")?)
                .or_default()
                .push((marker, exit));
        }
    }
    for system in SYSTEMS {
        let runs = times.get(&system).map_or(0, Vec::len);
        ensure!(
            runs == ROUNDS,
            "{} ended well {runs} times of {ROUNDS}",
            system.name()
        );
    }
    Ok(times)
}

/// The line that `rvm-lab-agent measure` prints.
fn measured(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.strip_prefix("MEASURED ")?.split(' ');
    let marker = fields.next()?.strip_prefix("marker_ns=")?.parse().ok()?;
    let exit = fields.next()?.strip_prefix("exit_ns=")?.parse().ok()?;
    Some((marker, exit))
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
        assert_eq!(measured(&line), Some((1_700_000_000, 1_800_000_000)));
    }

    #[test]
    fn times_go_to_the_system_that_was_named_before_them() {
        let round = "noise\nSYSTEM rvmm\nMEASURED marker_ns=1 exit_ns=2\r\nSYSTEM qemu-kvm\nMEASURED marker_ns=3 exit_ns=4\n";
        let times = parse(&round.repeat(ROUNDS)).unwrap();
        assert_eq!(times[&System::Rvmm], [(1, 2); ROUNDS]);
        assert_eq!(times[&System::QemuKvm], [(3, 4); ROUNDS]);
    }

    #[test]
    fn a_system_that_failed_once_is_an_error_and_not_a_shorter_list() {
        let said = "SYSTEM rvmm\nMEASURED marker_ns=1 exit_ns=2\nSYSTEM qemu-kvm\nrvm-lab-agent: it failed\n";
        assert_eq!(
            parse(said).unwrap_err().to_string(),
            "rvmm ended well 1 times of 5"
        );
    }
}
