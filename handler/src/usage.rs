//! What a machine takes of this node: what the kernel counts of its rvmm and of all that rvmm has started, QEMU under TCG.
//!
//! ```text
//!   control socket ──kernel──► pid of rvmm ─► /proc/PID/stat, /proc/PID/status ─┐
//!                                  └─► /proc/PID/task/*/children ─► … the same ─┴─► sums
//! ```

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

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

/// What processes have taken of this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Microseconds outside of the kernel.
    pub(crate) user: u64,
    /// Microseconds in the kernel.
    pub(crate) system: u64,
    /// Bytes that they hold.
    pub(crate) memory: u64,
}

/// What a thread has had of this node's processors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thread {
    /// Its name.
    pub(crate) name: String,
    /// Time on a processor.
    pub(crate) ran: Duration,
    /// Time that it waited for one.
    pub(crate) waited: Duration,
}

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
    let spent = spent(Path::new("/proc"), pid).map_err(Unreachable::Unavailable)?;
    Ok(Usage {
        at: now(),
        cpu: spent.user + spent.system,
        memory: spent.memory,
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

/// What a process and all below it have spent. One below it may end while it is looked at, and is then counted by the one above.
///
/// # Errors
/// The process is not there.
pub(crate) fn spent(proc: &Path, first: u32) -> io::Result<Spent> {
    let mut sum = own(proc, first)?;
    for pid in below(proc, first) {
        if let Ok(more) = own(proc, pid) {
            sum.user += more.user;
            sum.system += more.system;
            sum.memory += more.memory;
        }
    }
    Ok(sum)
}

/// The threads of a process and of all below it, as far as the kernel keeps their times.
pub(crate) fn threads(proc: &Path, first: u32) -> Vec<Thread> {
    let mut all = below(proc, first);
    all.push(first);
    let folders = all.into_iter().map(|pid| proc.join(pid.to_string()).join("task"));
    let threads = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    threads
        .flatten()
        .filter_map(|thread| look(&thread.path()))
        .collect()
}

/// A thread by its folder.
fn look(folder: &Path) -> Option<Thread> {
    let name = fs::read_to_string(folder.join("comm")).ok()?;
    // On a processor, waiting for one, how often: nanoseconds.
    let times = fs::read_to_string(folder.join("schedstat")).ok()?;
    let mut times = times.split_whitespace().map(str::parse).map_while(Result::ok);
    Some(Thread {
        name: name.trim_end().to_owned(),
        ran: Duration::from_nanos(times.next()?),
        waited: Duration::from_nanos(times.next()?),
    })
}

/// All processes below one, those that are found first.
fn below(proc: &Path, first: u32) -> Vec<u32> {
    let mut found = children(proc, first);
    let mut at = 0;
    while let Some(&pid) = found.get(at).filter(|_| at < MOST_PROCESSES) {
        found.extend(children(proc, pid));
        at += 1;
    }
    found.truncate(MOST_PROCESSES);
    found
}

/// Of one process.
fn own(proc: &Path, pid: u32) -> io::Result<Spent> {
    let folder = proc.join(pid.to_string());
    let no_number = || io::Error::other(format!("the kernel says nothing of process {pid} that is known"));
    let stat = fs::read_to_string(folder.join("stat"))?;
    // The name may hold anything, brackets as well.
    let (_, behind_the_name) = stat.rsplit_once(')').ok_or_else(no_number)?;
    let times = behind_the_name.split_whitespace().skip(TIMES.start);
    let times: Option<Vec<u64>> = times.take(TIMES.len()).map(|time| time.parse().ok()).collect();
    let times = times.and_then(|times| <[u64; TIMES.end - TIMES.start]>::try_from(times).ok());
    let [user, system, user_below, system_below] = times.ok_or_else(no_number)?;
    let status = fs::read_to_string(folder.join("status"))?;
    // One that has ended and is not yet waited for has none.
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(Spent {
        user: (user + user_below) * MICROSECONDS_PER_TICK,
        system: (system + system_below) * MICROSECONDS_PER_TICK,
        memory: kilobytes.unwrap_or(0) << 10,
    })
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
        let sum = spent(proc.path(), 7).unwrap();
        assert_eq!(
            (sum.user, sum.system, sum.memory),
            (104 * 10_000, 11 * 10_000, 514 << 10)
        );
        assert!(spent(proc.path(), 11).is_err());
    }

    #[test]
    fn threads_are_told_with_their_times_where_the_kernel_keeps_them() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 7, "1 2 3 4", 10, "8 ");
        process(proc.path(), 8, "1 2 3 4", 10, "");
        let folder = proc.path().join("8/task/8");
        fs::write(folder.join("comm"), "CPU 0/TCG\n").unwrap();
        fs::write(folder.join("schedstat"), "2000000000 500000000 7\n").unwrap();
        let expected = Thread {
            name: "CPU 0/TCG".to_owned(),
            ran: Duration::from_secs(2),
            waited: Duration::from_millis(500),
        };
        assert_eq!(threads(proc.path(), 7), [expected]);
    }

    #[test]
    fn this_process_has_used_some_memory_and_never_less_time() {
        let mine = || {
            let sum = spent(Path::new("/proc"), std::process::id()).unwrap();
            (sum.user + sum.system, sum.memory)
        };
        let (before, memory) = mine();
        assert!(memory > 100_000, "{memory}");
        let started = now();
        while mine().0 <= before {}
        assert!(now() > started);
    }
}
