//! Times a VMM from just before `fork` and `exec` to the first time that KVM enters its guest.
//!
//! The kernel says when that is: its trace event `kvm:kvm_entry`, stamped by the same clock that is read at the start.
//! The guest is of no interest after its first instruction, and is killed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::{ClockId, clock_gettime};

/// Where the kernel's tracing is told what to do, relative to its folder.
const EVENT: &str = "events/kvm/kvm_entry/enable";

/// What a line of the trace holds when a guest is entered.
const ENTRY: &str = ": kvm_entry:";

/// What we write into the trace when the command has ended.
const ENDED: &str = "rvm-lab-agent: the command has ended";

/// The kernel's tracing, once debugfs is mounted.
pub const TRACING: &str = "/sys/kernel/debug/tracing";

/// Starts `command`, waits until KVM enters a guest, and kills it.
///
/// # Errors
/// The kernel cannot trace KVM, or the program ended before it entered a guest.
pub fn first_entry(tracing: &Path, command: &[&str]) -> Result<Duration> {
    let [program, arguments @ ..] = command else {
        bail!("no command to measure")
    };
    let tell = |file: &str, word: &str| {
        fs::write(tracing.join(file), word).with_context(|| format!("the kernel's tracing refused {file}"))
    };
    tell("trace_clock", "mono")?;
    tell("trace", "")?;
    tell(EVENT, "1")?;
    tell("tracing_on", "1")?;
    let events = fs::File::open(tracing.join("trace_pipe")).context("no trace to read")?;
    let start = now()?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let pid = Pid::from_child(&child);
    let process = pidfd_open(pid, PidfdFlags::empty()).context("no descriptor of the command")?;
    let marker = tracing.join("trace_marker");
    let waiter = thread::spawn(move || {
        let status = child.wait();
        // Ends the wait for an entry, if there was none.
        fs::write(marker, ENDED).and(status)
    });
    let entered = BufReader::new(events)
        .lines()
        .map_while(Result::ok)
        .find(|line| line.contains(ENTRY) || line.contains(ENDED))
        .and_then(|line| stamp(&line));
    // It may have ended by itself; there is nothing left to kill then.
    pidfd_send_signal(&process, Signal::KILL).ok();
    waiter
        .join()
        .map_err(|_| anyhow!("the wait for the command broke off"))?
        .context("cannot wait for the command")?;
    tell(EVENT, "0")?;
    let entered = entered.with_context(|| format!("{program} never entered a guest"))?;
    entered
        .checked_sub(start)
        .context("the kernel's trace stamps by another clock")
}

fn now() -> Result<Duration> {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::try_from(now).context("the clock is before its own start")
}

/// The time on a line of the trace: `  rvmm-71  [000] .....  12.345678: kvm_entry: PC=0x80200000`.
fn stamp(line: &str) -> Option<Duration> {
    let before = line.split_once(ENTRY)?.0;
    let (seconds, fraction) = before.split_whitespace().last()?.split_once('.')?;
    let micros: u64 = fraction.parse().ok().filter(|_| fraction.len() == 6)?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_time_that_its_line_says() {
        let line = "            vcpu0-71      [000] .....    12.345678: kvm_entry: PC=0x80200000";
        assert_eq!(stamp(line), Some(Duration::from_micros(12_345_678)));
        assert_eq!(
            stamp("vcpu0-71 [000] ..... 12.345678: kvm_exit: SCAUSE=0x15"),
            None
        );
        assert_eq!(stamp("CPU:0 [LOST 3 EVENTS]"), None);
    }

    #[test]
    fn a_kernel_that_cannot_trace_kvm_is_an_error() {
        let empty = tempfile::tempdir().unwrap();
        let error = first_entry(&empty.path().join("tracing"), &["true"]).unwrap_err();
        assert_eq!(error.to_string(), "the kernel's tracing refused trace_clock");
    }
}
