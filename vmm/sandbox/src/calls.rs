//! The system calls that rvmm makes: which, by whom besides the main thread, and what for.
//!
//! The main thread may make all of them, since what it starts inherits its filter. A call that is not here ends rvmm with
//! one line that names the thread and the call. Calls that only older architectures have (`poll`, `open` …) are skipped
//! where they do not exist.

use crate::Thread;

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// Who makes it besides the main thread.
    pub also: &'static [Thread],
    /// What its arguments may be.
    pub with: With,
    /// What it is for.
    pub why: &'static str,
}

/// What the arguments of a call may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// Anything.
    Anything,
    /// A request out of the tables of [`crate::requests`].
    Requests,
    /// No executable memory: the third argument has no `PROT_EXEC`.
    NoExecution,
    /// A thread, never a process: the first argument has `CLONE_THREAD`.
    AThread,
    /// A Unix socket: the first argument is `AF_UNIX`.
    Unix,
    /// This process: the first argument is its number.
    Ourselves,
    /// A look: the third argument, what would be set, is null.
    NothingNew,
    /// One of these first arguments.
    OneOf(&'static [u32]),
    /// Nothing: the call answers that it does not exist, and the C library takes an older one.
    Absence,
}

/// Every kind of thread.
const EVERY: &[Thread] = &[Thread::Vcpu, Thread::Disk];
/// The vCPUs' threads.
const VCPU: &[Thread] = &[Thread::Vcpu];
/// The disks' threads.
const DISK: &[Thread] = &[Thread::Disk];
/// The main thread alone.
const MAIN: &[Thread] = &[];

const PR_SET_NAME: u32 = 15;
/// What the C library of a static program asks for the size of a page.
const PR_GET_AUXV: u32 = 0x4155_5856;
const PR_SET_VMA: u32 = 0x5356_4d41;
const PR_SET_SECCOMP: u32 = 22;
const PR_SET_NO_NEW_PRIVS: u32 = 38;

const fn row(name: &'static str, also: &'static [Thread], with: With, why: &'static str) -> Call {
    Call {
        name,
        also,
        with,
        why,
    }
}

/// The table.
#[rustfmt::skip]
pub const CALLS: &[Call] = &[
    // To live, to wait, to end.
    row("futex",            EVERY, With::Anything,    "locks, channels, joins"),
    row("exit",             EVERY, With::Anything,    "a thread ends"),
    row("exit_group",       EVERY, With::Anything,    "the process ends, or is ended by the handler of SIGSYS"),
    row("rt_sigreturn",     EVERY, With::Anything,    "return from the signal that kicks a vCPU"),
    row("restart_syscall",  EVERY, With::Anything,    "a wait goes on after a stop (SIGSTOP)"),
    row("rt_sigprocmask",   EVERY, With::Anything,    "a thread's end, abort, fork of nothing"),
    row("rt_sigaction",     EVERY, With::Anything,    "abort puts SIGABRT back"),
    row("sigaltstack",      EVERY, With::Anything,    "a thread's guard against stack overflow"),
    row("tgkill",           EVERY, With::Ourselves,   "kicks a vCPU; abort"),
    row("kill",             MAIN,  With::Ourselves,   "stops itself for a shell (SIGTSTP)"),
    row("gettid",           EVERY, With::Anything,    "abort, panic messages"),
    row("getpid",           EVERY, With::Anything,    "abort, control socket"),
    row("sched_yield",      EVERY, With::Anything,    "spinning locks, channels"),
    row("clock_gettime",    EVERY, With::Anything,    "where the vDSO cannot answer"),
    row("clock_nanosleep",  EVERY, With::Anything,    "pauses"),
    row("nanosleep",        EVERY, With::Anything,    "pauses, on older C libraries"),
    row("getrandom",        EVERY, With::Anything,    "entropy for the guest, keys of hash maps"),
    row("set_robust_list",  EVERY, With::Anything,    "a thread begins"),
    row("rseq",             EVERY, With::Anything,    "a thread begins"),
    row("set_tid_address",  MAIN,  With::Anything,    "a thread begins"),
    row("prctl",            EVERY, With::OneOf(&[PR_SET_NAME, PR_GET_AUXV, PR_SET_VMA, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS]),
                                                      "names of threads and mappings; a thread confines itself"),
    row("seccomp",          EVERY, With::Anything,    "a thread confines itself: filters only ever add"),
    row("clone",            MAIN,  With::AThread,     "vCPUs, disks; never a process"),
    row("clone3",           MAIN,  With::Absence,     "its arguments cannot be seen; the C library then calls clone"),
    row("sched_getaffinity", EVERY, With::Anything,   "how many CPUs, stack of a thread"),
    row("prlimit64",        EVERY, With::NothingNew,  "size of a stack"),
    row("getrlimit",        EVERY, With::Anything,    "size of a stack"),
    row("uname",            MAIN,  With::Anything,    "features of the kernel"),
    row("sysinfo",          MAIN,  With::Anything,    "how much memory a sort may take"),
    row("geteuid",          MAIN,  With::Anything,    "who may use a socket"),
    row("getuid",           MAIN,  With::Anything,    "who may use a socket"),
    row("getegid",          MAIN,  With::Anything,    "who may use a socket"),
    row("getgid",           MAIN,  With::Anything,    "who may use a socket"),
    // Memory.
    row("brk",              EVERY, With::Anything,    "heap"),
    row("mmap",             EVERY, With::NoExecution, "heap, stacks, guest RAM"),
    row("munmap",           EVERY, With::Anything,    "heap, stacks, guest RAM"),
    row("mremap",           EVERY, With::Anything,    "heap"),
    row("mprotect",         EVERY, With::NoExecution, "heap, fences of stacks"),
    row("madvise",          EVERY, With::Anything,    "guest RAM given back; a stack at its thread's end"),
    row("memfd_create",     MAIN,  With::Anything,    "shared guest RAM"),
    // Descriptors.
    row("read",             EVERY, With::Anything,    "eventfds, sockets, files"),
    row("write",            EVERY, With::Anything,    "eventfds, sockets, files, the last word"),
    row("readv",            EVERY, With::Anything,    "guest memory from sockets, taps, files"),
    row("writev",           EVERY, With::Anything,    "guest memory to sockets, taps, files, the last word"),
    row("pread64",          EVERY, With::Anything,    "disks, kernels"),
    row("pwrite64",         EVERY, With::Anything,    "disks"),
    row("preadv",           EVERY, With::Anything,    "disks"),
    row("pwritev",          EVERY, With::Anything,    "disks"),
    row("preadv2",          DISK,  With::Anything,    "disks"),
    row("pwritev2",         DISK,  With::Anything,    "disks"),
    row("fsync",            DISK,  With::Anything,    "a disk's flush"),
    row("fdatasync",        EVERY, With::Anything,    "a disk's flush; the firmware's variables"),
    row("fallocate",        DISK,  With::Anything,    "discard, write zeroes"),
    row("ftruncate",        DISK,  With::Anything,    "shared guest RAM, growing images"),
    row("lseek",            DISK,  With::Anything,    "sizes, holes"),
    row("close",            EVERY, With::Anything,    "everything"),
    row("dup",              MAIN,  With::Anything,    "a descriptor for another thread"),
    row("dup3",             MAIN,  With::Anything,    "a descriptor in another's place"),
    row("fcntl",            EVERY, With::Anything,    "locks of disks, O_NONBLOCK, descriptors for other threads, seals"),
    row("flock",            MAIN,  With::Anything,    "the run directory's lock"),
    row("fstat",            EVERY, With::Anything,    "sizes and kinds of files"),
    row("newfstatat",       EVERY, With::Anything,    "sizes and kinds of files"),
    row("fstatfs",          DISK,  With::Anything,    "what a disk's file system can do"),
    row("statx",            EVERY, With::Anything,    "sizes and kinds of files"),
    row("ioctl",            EVERY, With::Requests,    "KVM, taps, block devices, terminals"),
    row("io_uring_enter",   DISK,  With::Anything,    "disks"),
    row("io_uring_setup",   MAIN,  With::Anything,    "disks"),
    row("io_uring_register", MAIN, With::Anything,    "disks"),
    // Files: Landlock says which.
    row("openat",           EVERY, With::Anything,    "files of the Spec at a boot; a new console.log; glibc looks at overcommit_memory as it frees"),
    row("open",             EVERY, With::Anything,    "as openat"),
    row("renameat2",        VCPU,  With::Anything,    "console.log becomes console.log.old; exit.json"),
    row("renameat",         VCPU,  With::Anything,    "as renameat2"),
    row("rename",           VCPU,  With::Anything,    "as renameat2"),
    row("unlinkat",         MAIN,  With::Anything,    "sockets, at the end"),
    row("unlink",           MAIN,  With::Anything,    "as unlinkat"),
    row("rmdir",            MAIN,  With::Anything,    "the work folder, at the end"),
    row("mkdirat",          MAIN,  With::Anything,    "run directory"),
    row("mkdir",            MAIN,  With::Anything,    "as mkdirat"),
    row("faccessat2",       MAIN,  With::Anything,    "whether a program is there"),
    row("faccessat",        MAIN,  With::Anything,    "as faccessat2"),
    row("access",           MAIN,  With::Anything,    "as faccessat2"),
    row("readlinkat",       MAIN,  With::Anything,    "names of files"),
    row("readlink",         MAIN,  With::Anything,    "as readlinkat"),
    row("getdents64",       MAIN,  With::Anything,    "the work folder, at the end"),
    row("fchmod",           MAIN,  With::Anything,    "sockets for their owner alone"),
    row("fchmodat",         MAIN,  With::Anything,    "sockets for their owner alone"),
    row("umask",            MAIN,  With::Anything,    "sockets for their owner alone"),
    row("chmod",            MAIN,  With::Anything,    "as fchmodat"),
    row("getpgid",          EVERY, With::Anything,    "whether the terminal is ours, for whoever puts it back"),
    row("getpgrp",          EVERY, With::Anything,    "as getpgid"),
    row("getcwd",           MAIN,  With::Anything,    "paths that are not absolute"),
    // The event loop.
    row("epoll_create1",    MAIN,  With::Anything,    "event loop"),
    row("epoll_ctl",        EVERY, With::Anything,    "event loop"),
    row("epoll_pwait",      DISK,  With::Anything,    "event loop"),
    row("epoll_wait",       DISK,  With::Anything,    "event loop"),
    row("ppoll",            EVERY, With::Anything,    "waits for one descriptor"),
    row("poll",             EVERY, With::Anything,    "as ppoll"),
    row("eventfd2",         EVERY, With::Anything,    "doorbells, wake-ups"),
    row("timerfd_create",   MAIN,  With::Anything,    "timers"),
    row("timerfd_settime",  EVERY, With::Anything,    "timers"),
    row("timerfd_gettime",  EVERY, With::Anything,    "timers"),
    row("signalfd4",        MAIN,  With::Anything,    "signals as events"),
    row("pipe2",            MAIN,  With::Anything,    "between threads"),
    // Sockets: of Unix, all of them.
    row("socket",           MAIN,  With::Unix,        "vsock, vhost-user, passt"),
    row("socketpair",       MAIN,  With::Unix,        "the ends that QEMU inherits"),
    row("connect",          MAIN,  With::Anything,    "vsock, vhost-user, passt"),
    row("bind",             MAIN,  With::Anything,    "vsock"),
    row("listen",           MAIN,  With::Anything,    "vsock"),
    row("accept4",          MAIN,  With::Anything,    "viewers, control clients, vsock"),
    row("shutdown",         VCPU,  With::Anything,    "half-closed connections; a server of files that is gone"),
    row("sendto",           VCPU,  With::Anything,    "sockets; a server of files is told what the driver sets up"),
    row("recvfrom",         VCPU,  With::Anything,    "sockets, as sendto"),
    row("sendmsg",          VCPU,  With::Anything,    "sockets, descriptors for vhost-user"),
    row("recvmsg",          MAIN,  With::Anything,    "sockets, descriptors of control clients"),
    row("getsockopt",       MAIN,  With::Anything,    "who is at the other end, whether a connect succeeded"),
    row("setsockopt",       MAIN,  With::Anything,    "buffer sizes"),
    row("getsockname",      MAIN,  With::Anything,    "sockets"),
    row("getpeername",      MAIN,  With::Anything,    "sockets"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use syscalls::{riscv64, x86_64};

    #[test]
    fn every_name_is_a_system_call_of_an_architecture_that_rvmm_runs_on() {
        for call in CALLS {
            let known =
                call.name.parse::<riscv64::Sysno>().is_ok() || call.name.parse::<x86_64::Sysno>().is_ok();
            assert!(known, "{} is no system call", call.name);
            assert!(!call.why.is_empty(), "{} has no reason", call.name);
        }
    }

    #[test]
    fn no_call_is_listed_twice() {
        let names: BTreeSet<_> = CALLS.iter().map(|call| call.name).collect();
        assert_eq!(names.len(), CALLS.len());
    }

    #[test]
    fn what_makes_a_process_a_program_or_another_user_is_not_in_the_table() {
        let names: BTreeSet<_> = CALLS.iter().map(|call| call.name).collect();
        for name in [
            "execve",
            "execveat",
            "fork",
            "vfork",
            "ptrace",
            "process_vm_writev",
            "mount",
            "setuid",
            "capset",
            "bpf",
            "pidfd_open",
            "setns",
            "unshare",
            "keyctl",
            "perf_event_open",
            "init_module",
            "chroot",
            "symlinkat",
            "linkat",
            "mknodat",
        ] {
            assert!(!names.contains(name), "{name}");
        }
    }
}
