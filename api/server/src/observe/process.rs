//! What the kernel counts of this process, under the names that every program has for it.

use std::fs;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit};

/// What /proc counts time in, on every architecture that rvm knows (the kernel's USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
/// Behind the process's name in /proc/self/stat: its time in user and kernel, its threads, its start.
const USER: usize = 11;
const KERNEL: usize = 12;
const THREADS: usize = 17;
const START: usize = 19;

/// Adds what can be read; what cannot is left out.
pub(super) fn count(registry: &mut Registry) {
    // The name may hold anything, brackets as well.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| {
        // The first is a letter.
        rest.split_whitespace()
            .map(|field| field.parse().unwrap_or(0.0))
            .collect()
    });
    if let [Some(user), Some(kernel)] = [USER, KERNEL].map(|at| fields.get(at)) {
        let spent = Counter::<f64, AtomicU64>::default();
        spent.inc_by((user + kernel) / TICKS_PER_SECOND);
        registry.register("process_cpu_seconds", "Processors' time that was spent", spent);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB"));
        kilobytes
            .and_then(|number| number.trim().parse::<f64>().ok())
            .map(|number| number * 1024.0)
    };
    let started = booted()
        .zip(fields.get(START))
        .map(|(booted, ticks)| booted + ticks / TICKS_PER_SECOND);
    let numbers = [
        ("process_threads", "Threads", fields.get(THREADS).copied()),
        ("process_start_time_seconds", "When it began, since 1970", started),
        (
            "process_virtual_memory_bytes",
            "Addresses that are in use",
            memory("VmSize"),
        ),
        (
            "process_resident_memory_bytes",
            "Memory that is held",
            memory("VmRSS"),
        ),
        ("process_open_fds", "Open descriptors", descriptors()),
        ("process_max_fds", "Descriptors that may be open", limit()),
    ];
    for (name, help, number) in numbers {
        if let Some(number) = number {
            let gauge = Gauge::<f64, AtomicU64>::default();
            gauge.set(number);
            registry.register(name, help, gauge);
        }
    }
}

/// When the machine was started.
fn booted() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime ")?.parse().ok())
}

fn descriptors() -> Option<f64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    u32::try_from(open).ok().map(f64::from)
}

fn limit() -> Option<f64> {
    let limit = getrlimit(Resource::Nofile).current?;
    u32::try_from(limit).ok().map(f64::from)
}
