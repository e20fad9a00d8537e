//! What is asked of one machine at a scrape: by its control socket, and of the kernel about its processes.

use std::fs;
use std::path::Path;

use rvmm_control::{Client, Info, Stats};

use crate::networks::model::TAP;
use crate::usage::{self, Spent, Thread};
use crate::vm::VmId;

/// What one machine said, and the kernel of it.
pub(super) struct Sample {
    pub(super) id: VmId,
    pub(super) info: Info,
    pub(super) stats: Stats,
    /// Of all its processes.
    pub(super) spent: Spent,
    /// Its vCPUs' threads, by number.
    pub(super) vcpus: Vec<(u32, Thread)>,
    /// Its interface, if the kernel carries that.
    pub(super) interface: Option<Interface>,
}

/// What the kernel counts of a tap, as the guest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Interface {
    pub(super) received: Flow,
    pub(super) transmitted: Flow,
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Flow {
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) errors: u64,
    pub(super) dropped: u64,
}

// === impl Sample ===

impl Sample {
    /// Asks the machine behind this control socket. Blocks; nothing if it does not answer.
    pub(super) fn take(id: VmId, socket: &Path) -> Option<Self> {
        let mut client = Client::connect(socket).ok()?;
        let (info, stats) = (client.info().ok()?, client.stats().ok()?);
        // As we see it, which need not be as it sees itself.
        let pid = client.peer_pid().ok()?;
        let proc = Path::new("/proc");
        let spent = usage::spent(proc, pid).ok()?;
        let threads = usage::threads(proc, pid).into_iter();
        let vcpus = threads.filter_map(|thread| Some((vcpu(&thread.name)?, thread)));
        // It lives in the network namespace that its tap is in.
        let devices = fs::read_to_string(proc.join(pid.to_string()).join("net/dev")).unwrap_or_default();
        Some(Self {
            id,
            info,
            stats,
            spent,
            vcpus: vcpus.collect(),
            interface: tap(&devices),
        })
    }
}

/// Which vCPU's thread has this name: rvmm's `vcpu0`, QEMU's `CPU 0/TCG`.
fn vcpu(name: &str) -> Option<u32> {
    let number = name.strip_prefix("vcpu");
    let number = number.or_else(|| name.strip_prefix("CPU ")?.strip_suffix("/TCG"))?;
    number.parse().ok()
}

/// The tap's line in /proc/net/dev: eight columns of what it received, eight of what it transmitted. What the tap transmits, the
/// guest receives.
fn tap(devices: &str) -> Option<Interface> {
    let lines = devices.lines().filter_map(|line| line.split_once(':'));
    let (_, columns) = lines.into_iter().find(|(name, _)| name.trim() == TAP)?;
    let columns: Option<Vec<u64>> = columns
        .split_whitespace()
        .map(|column| column.parse().ok())
        .collect();
    let columns = columns?;
    let flow = |first: usize| {
        let [bytes, packets, errors, dropped] = *columns.get(first..first + 4)?.first_chunk()?;
        Some(Flow {
            bytes,
            packets,
            errors,
            dropped,
        })
    };
    Some(Interface {
        received: flow(8)?,
        transmitted: flow(0)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_vcpus_are_known_by_their_names() {
        let names = ["vcpu3", "CPU 12/TCG", "rvmm", "CPU x/TCG", "vcpu", "disk0"];
        assert_eq!(names.map(vcpu), [Some(3), Some(12), None, None, None, None]);
    }

    #[test]
    fn what_the_tap_transmits_the_guest_receives() {
        let devices = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:       9       9    9    9    9     9          9         9        9       9    9    9    9     9       9          9\n  \
            tap0:    1       2    3    4    0     0          0         0        5       6    7    8    0     0       0          0\n";
        let interface = tap(devices).unwrap();
        let numbers = |flow: Flow| [flow.bytes, flow.packets, flow.errors, flow.dropped];
        assert_eq!(
            (numbers(interface.transmitted), numbers(interface.received)),
            ([1, 2, 3, 4], [5, 6, 7, 8])
        );
        assert_eq!(tap("tap0: 1 2\n"), None);
        assert_eq!(tap(""), None);
    }
}
