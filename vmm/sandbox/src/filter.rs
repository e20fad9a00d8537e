//! From the table of calls to the seccomp filter of one kind of thread.
//!
//! What is in no row is trapped, with the thread's kind as the trap's data so that the handler can name it.

use std::str::FromStr;
use std::sync::LazyLock;

use syscalls::Sysno;

use crate::calls::{CALLS, Call, With};
use crate::program::{Row, Verdict, Way, Word, program};
use crate::{KvmRequests, Thread, launcher, requests};

/// A filter that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Nobody said what calls are called here.
    #[error("there are no filters for {}", std::env::consts::ARCH)]
    Architecture,
    /// The kernel refused it.
    #[error("the kernel refuses the filter")]
    Install(#[source] seccompiler::Error),
}

/// Confines the calling thread for good.
pub fn install(thread: Thread, kvm: &KvmRequests, logged: bool) -> Result<(), FilterError> {
    let stop = if logged {
        Verdict::Log
    } else {
        Verdict::Trap(thread as u16)
    };
    let program = match thread {
        Thread::Launcher => program(launcher::denied(stop), Verdict::Allow, stop),
        Thread::Main | Thread::Vcpu | Thread::Disk => program(rows(thread, kvm), stop, stop),
    };
    let program = program.ok_or(FilterError::Architecture)?;
    seccompiler::apply_filter(&program).map_err(FilterError::Install)
}

/// The calls that a thread may make.
fn calls(thread: Thread) -> impl Iterator<Item = (u32, &'static Call)> {
    let its = move |(_, call): &(u32, &Call)| thread == Thread::Main || call.also.contains(&thread);
    NUMBERED.iter().copied().filter(its)
}

/// The table with its calls' numbers: to look up a name takes longer than all else that a filter is made of.
static NUMBERED: LazyLock<Vec<(u32, &Call)>> = LazyLock::new(|| {
    let numbered = |call: &'static Call| Some((number(call.name)?, call));
    CALLS.iter().filter_map(numbered).collect()
});

/// The number of a call; a name that this architecture does not have is of another one.
pub fn number(name: &str) -> Option<u32> {
    Some(Sysno::from_str(name).ok()?.id().unsigned_abs())
}

fn rows(thread: Thread, kvm: &KvmRequests) -> Vec<Row> {
    let row = |(number, call): (u32, &Call)| Row {
        number,
        ways: ways(call.with, thread, kvm),
        verdict: match call.with {
            With::Absence => Verdict::Error(NO_SUCH_CALL),
            _ => Verdict::Allow,
        },
    };
    calls(thread).map(row).collect()
}

/// `ENOSYS`, by which the C library learns to take an older call.
const NO_SUCH_CALL: u16 = 38;

/// The ways in which a call may be made; none means any. Arguments are numbers of 32 bits, but for pointers, which are compared
/// with null only.
fn ways(with: With, thread: Thread, kvm: &KvmRequests) -> Vec<Way> {
    let has = |argument, mask: i32, wanted: i32| {
        let word = Word::has(argument, mask.unsigned_abs(), wanted.unsigned_abs());
        vec![vec![word]]
    };
    let each = |argument, values: &[u32]| {
        let words = values.iter().map(|value| vec![Word::is(argument, *value)]);
        words.collect()
    };
    match with {
        With::Anything | With::Absence => Vec::new(),
        With::Requests => each(1, &requests(thread, kvm)),
        With::NoExecution => has(2, libc::PROT_EXEC, 0),
        With::AThread => has(0, libc::CLONE_THREAD, libc::CLONE_THREAD),
        With::Unix => each(0, &[libc::AF_UNIX.unsigned_abs()]),
        With::Ourselves => each(0, &[std::process::id()]),
        With::NothingNew => vec![Word::null(2)],
        With::OneOf(values) => each(0, values),
    }
}

/// The requests of a thread. Those that a running guest makes come first, as they are compared in this order.
fn requests(thread: Thread, kvm: &KvmRequests) -> Vec<u32> {
    let named = |table: &[(&str, u32)]| table.iter().map(|(_, number)| *number).collect::<Vec<_>>();
    let tables = match thread {
        Thread::Vcpu => vec![kvm.run.to_vec(), named(requests::VCPU), named(requests::EVERY)],
        Thread::Disk => vec![kvm.run.to_vec(), named(requests::DISK), named(requests::EVERY)],
        Thread::Main | Thread::Launcher => vec![
            kvm.run.to_vec(),
            kvm.build.to_vec(),
            named(requests::DISK),
            named(requests::VCPU),
            named(requests::MAIN),
            named(requests::EVERY),
        ],
    };
    tables.concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::program::tests::{Made, run};

    /// Calls with numbers up to this are looked at; there are no higher ones.
    const NUMBERS: u32 = 2000;

    #[test]
    fn what_is_in_no_row_is_trapped_by_its_threads_name() {
        for thread in [Thread::Main, Thread::Vcpu, Thread::Disk] {
            let listed: Vec<u32> = calls(thread).map(|(number, _)| number).collect();
            let stop = Verdict::Trap(thread as u16);
            let program = program(rows(thread, &KvmRequests::default()), stop, stop).unwrap();
            let others = (0..NUMBERS).filter(|number| !listed.contains(number));
            let made = |number| Made {
                number,
                ..Made::default()
            };
            let verdicts: BTreeMap<u32, u32> = others
                .map(|number| (run(&program, made(number)), number))
                .collect();
            assert_eq!(Vec::from_iter(verdicts.keys()), [&(0x0003_0000 | thread as u32)]);
        }
    }

    #[test]
    fn a_row_lets_through_what_it_names_and_nothing_else() {
        let rows = rows(Thread::Main, &KvmRequests::default());
        let stop = Verdict::Trap(0);
        let program = program(rows, stop, stop).unwrap();
        let verdict = |name, arguments| {
            run(
                &program,
                Made {
                    number: number(name).unwrap(),
                    arguments,
                },
            )
        };
        let (made, trapped, absent) = (0x7fff_0000, 0x0003_0000, 0x0005_0026);
        let exec = u64::from(libc::PROT_EXEC.unsigned_abs());
        assert_eq!(verdict("futex", [7; 6]), made);
        assert_eq!(verdict("clone3", [7; 6]), absent);
        assert_eq!(verdict("mmap", [0, 0, 3, 0, 0, 0]), made);
        assert_eq!(verdict("mmap", [0, 0, 3 | exec, 0, 0, 0]), trapped);
        assert_eq!(verdict("socket", [1, 0, 0, 0, 0, 0]), made);
        assert_eq!(verdict("socket", [2, 0, 0, 0, 0, 0]), trapped);
        assert_eq!(verdict("ioctl", [0, 0x5401, 0, 0, 0, 0]), made);
        assert_eq!(verdict("ioctl", [0, 0x5412, 0, 0, 0, 0]), trapped);
    }

    #[test]
    fn what_a_thread_may_the_thread_that_starts_it_may_too() {
        let main: Vec<u32> = calls(Thread::Main).map(|(number, _)| number).collect();
        for thread in [Thread::Vcpu, Thread::Disk] {
            assert!(calls(thread).all(|(number, _)| main.contains(&number)));
            assert!(calls(thread).count() < main.len());
        }
    }
}
