//! What a machine takes of this node: what the kernel counts of its rvmm and of all that rvmm has started, QEMU under TCG.
//!
//! ```text
//!   control socket ──kernel──► pid of rvmm ─► /proc/PID/stat, /proc/PID/status ─┐
//!                                  └─► /proc/PID/task/*/children ─► … the same ─┴─► sums
//! ```

use std::fs;
use std::io;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use rvm_server::{Meters, Unreachable, Usage};
use rvm_types::VirtualMachineInstance;
use rvmm_control::{Client, ClientError};

use crate::doors::Doors;
use crate::steps::chain;

/// Processes of one machine that are looked at: rvmm and QEMU are two.
const MOST_PROCESSES: usize = 32;
/// What /proc counts time in, on every architecture that rvm knows (the kernel's USER_HZ).
const TICKS_PER_SECOND: u64 = 100;
const MICROSECONDS_PER_TICK: u64 = 1_000_000 / TICKS_PER_SECOND;
/// Where the times stand in /proc/PID/stat, behind the name: of the process in user and kernel, and of its children that have ended.
const TIMES: std::ops::Range<usize> = 11..15;

#[tonic::async_trait]
impl Meters for Doors {
    async fn usage(&self, vmi: &VirtualMachineInstance) -> Result<Usage, Unreachable> {
        let id = self.here(vmi)?;
        let socket = self.machines.run_dir(&id).control_socket();
        let counted = tokio::task::spawn_blocking(move || count(&socket)).await;
        counted.map_err(|error| Unreachable::Unavailable(error.into()))?
    }
}

/// Counts what the machine behind this control socket takes. Blocks.
pub(crate) fn count(socket: &Path) -> Result<Usage, Unreachable> {
    let silent = |error: ClientError| Unreachable::Unavailable(io::Error::other(chain(&error)));
    let mut client = Client::connect(socket).map_err(silent)?;
    let info = client.info().map_err(silent)?;
    // As we see it, which need not be as it sees itself.
    let pid = client.peer_pid().map_err(silent)?;
    let (cpu, memory) = sum(Path::new("/proc"), pid).map_err(Unreachable::Unavailable)?;
    Ok(Usage {
        at: now(),
        cpu,
        memory,
        cpus: info.cpus,
        guest_memory: info.memory_bytes,
    })
}

/// Microseconds of a clock that never goes back.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let whole = u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000;
    whole + u64::try_from(now.tv_nsec / 1000).unwrap_or(0)
}

/// Microseconds and bytes of a process and of all below it. One below it may end while it is looked at, and is then counted by the one above.
fn sum(proc: &Path, first: u32) -> io::Result<(u64, u64)> {
    let (mut ticks, mut memory) = own(proc, first)?;
    let mut found = children(proc, first);
    let mut at = 0;
    while let Some(&pid) = found.get(at).filter(|_| at < MOST_PROCESSES) {
        if let Ok((more_ticks, more_memory)) = own(proc, pid) {
            ticks += more_ticks;
            memory += more_memory;
            found.extend(children(proc, pid));
        }
        at += 1;
    }
    Ok((ticks * MICROSECONDS_PER_TICK, memory))
}

/// Ticks and bytes of one process.
fn own(proc: &Path, pid: u32) -> io::Result<(u64, u64)> {
    let folder = proc.join(pid.to_string());
    let no_number = || io::Error::other(format!("the kernel says nothing of process {pid} that is known"));
    let stat = fs::read_to_string(folder.join("stat"))?;
    // The name may hold anything, brackets as well.
    let (_, behind_the_name) = stat.rsplit_once(')').ok_or_else(no_number)?;
    let times = behind_the_name.split_whitespace().skip(TIMES.start);
    let times: Option<Vec<u64>> = times.take(TIMES.len()).map(|time| time.parse().ok()).collect();
    let ticks = times.filter(|times| times.len() == TIMES.len());
    let ticks = ticks.ok_or_else(no_number)?.iter().sum();
    let status = fs::read_to_string(folder.join("status"))?;
    // One that has ended and is not yet waited for has none.
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok((ticks, kilobytes.unwrap_or(0) << 10))
}

/// Whom the threads of a process have started. Where the kernel does not tell, none.
fn children(proc: &Path, pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(proc.join(pid.to_string()).join("task"));
    let threads = threads.into_iter().flatten().flatten();
    let said = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids = said.flat_map(|said| said.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    pids.filter_map(|pid| pid.parse().ok())
        .take(MOST_PROCESSES)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process as the kernel shows it.
    fn process(proc: &Path, pid: u32, times: &str, kilobytes: u32, children: &str) {
        let folder = proc.join(pid.to_string());
        let thread = folder.join("task").join(pid.to_string());
        fs::create_dir_all(&thread).unwrap();
        fs::write(thread.join("children"), children).unwrap();
        let stat = format!("{pid} (a ) 9 (name) S 1 1 1 0 -1 4194304 100 0 0 0 {times} 20 0 1 0 0\n");
        fs::write(folder.join("stat"), stat).unwrap();
        fs::write(
            folder.join("status"),
            format!("Name:\tx\nVmRSS:\t{kilobytes} kB\n"),
        )
        .unwrap();
    }

    #[test]
    fn a_machine_takes_what_all_its_processes_take() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 7, "1 2 3 4", 10, "8 ");
        process(proc.path(), 8, "100 0 0 0", 500, "9 10 ");
        process(proc.path(), 9, "0 5 0 0", 4, "");
        // 10 has ended.
        assert_eq!(sum(proc.path(), 7).unwrap(), (115 * 10_000, 514 << 10));
        assert!(sum(proc.path(), 11).is_err());
    }

    #[test]
    fn this_process_has_used_some_memory_and_never_less_time() {
        let mine = || sum(Path::new("/proc"), std::process::id()).unwrap();
        let (before, memory) = mine();
        assert!(memory > 100_000, "{memory}");
        let started = now();
        while mine().0 <= before {}
        assert!(now() > started);
    }
}
