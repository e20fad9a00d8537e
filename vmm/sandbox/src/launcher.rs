//! What QEMU, and the thread that starts it, may not do.
//!
//! A filter is inherited across `exec`, and QEMU's needs are QEMU's to know: it gives up calls by itself (`-sandbox on`)
//! once it has started. So this filter, unlike the others, lists what is denied: what no emulator of a machine needs, and
//! what helps to get out of walls. The thread is started before the main thread confines itself, so that the main
//! thread, which reads what viewers and clients send, can start no program at all.

use crate::filter::number;
use crate::program::{Row, Verdict};

/// Calls that QEMU and the thread that starts it may not make.
const DENIED: &[&str] = &[
    // Other processes.
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "kcmp",
    "pidfd_getfd",
    // Other namespaces and other roots.
    "setns",
    "unshare",
    "chroot",
    "pivot_root",
    "mount",
    "umount2",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "open_by_handle_at",
    "name_to_handle_at",
    // The kernel.
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "syslog",
    "acct",
    "reboot",
    "swapon",
    "swapoff",
    "quotactl",
    "fanotify_init",
    "iopl",
    "ioperm",
    // Keys, clocks and names of the host.
    "add_key",
    "keyctl",
    "request_key",
    "settimeofday",
    "clock_settime",
    "clock_adjtime",
    "adjtimex",
    "sethostname",
    "setdomainname",
    "vhangup",
];

/// The denied calls that this architecture has, each with this verdict.
pub(crate) fn denied(verdict: Verdict) -> Vec<Row> {
    let numbers = DENIED.iter().filter_map(|name| number(name));
    numbers
        .map(|number| Row {
            number,
            ways: Vec::new(),
            verdict,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use syscalls::x86_64::Sysno as Old;

    #[test]
    fn every_denied_name_is_a_system_call() {
        for name in DENIED {
            assert!(name.parse::<Old>().is_ok(), "{name}");
        }
    }
}
