//! From the table of calls to seccomp filters of one kind of thread.
//!
//! A thread gets two programs: one that lets the table's calls through and traps the others, with the thread's kind as the
//! trap's data so that the handler can name it; and one that answers "no such call" to those that are to be made in
//! another way. The kernel remembers which calls need no look at their arguments, so those cost nothing.

use std::collections::BTreeMap;
use std::str::FromStr;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use syscalls::Sysno;

use crate::calls::{CALLS, Call, With};
use crate::{KvmRequests, Thread, launcher, requests};

/// How a program ends that traps (Linux, include/uapi/linux/seccomp.h); its lower half is the trap's data.
const RET_TRAP: u32 = 0x0003_0000;
/// The instruction that ends a program with a constant.
const RET_K: u16 = 0x06;

/// A filter that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The table does not make a program.
    #[error("the rules make no filter")]
    Rules(#[source] seccompiler::BackendError),
    /// The kernel refused it.
    #[error("the kernel refuses the filter")]
    Install(#[source] seccompiler::Error),
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Confines the calling thread for good.
pub fn install(thread: Thread, kvm: &KvmRequests, logged: bool) -> Result<(), FilterError> {
    for program in programs(thread, kvm, logged)? {
        seccompiler::apply_filter(&program).map_err(FilterError::Install)?;
    }
    Ok(())
}

/// The programs of a thread, in the order in which they are installed.
fn programs(thread: Thread, kvm: &KvmRequests, logged: bool) -> Result<Vec<BpfProgram>, FilterError> {
    let stop = if logged {
        SeccompAction::Log
    } else {
        SeccompAction::Trap
    };
    if thread == Thread::Launcher {
        let program = build(launcher::denied(), SeccompAction::Allow, stop)?;
        return Ok(vec![marked(program, thread)]);
    }
    let absent = seccompiler_absent(thread);
    let allowed = marked(build(allowed(thread, kvm)?, stop, SeccompAction::Allow)?, thread);
    let no_such_call = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    Ok(vec![build(absent, SeccompAction::Allow, no_such_call)?, allowed])
}

fn build(rules: Rules, other: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, FilterError> {
    let here = TargetArch::try_from(std::env::consts::ARCH).map_err(FilterError::Rules)?;
    SeccompFilter::new(rules, other, listed, here)
        .and_then(BpfProgram::try_from)
        .map_err(FilterError::Rules)
}

/// Puts the thread's kind into every trap of a program.
fn marked(mut program: BpfProgram, thread: Thread) -> BpfProgram {
    for instruction in &mut program {
        if instruction.code == RET_K && instruction.k == RET_TRAP {
            instruction.k |= thread as u32;
        }
    }
    program
}

/// The calls that a thread may make.
fn calls(thread: Thread) -> impl Iterator<Item = (i64, &'static Call)> {
    let its = move |call: &&Call| thread == Thread::Main || call.also.contains(&thread);
    // A name that this architecture does not have is of another one.
    CALLS
        .iter()
        .filter(its)
        .filter_map(|call| Some((i64::from(Sysno::from_str(call.name).ok()?.id()), call)))
}

fn seccompiler_absent(thread: Thread) -> Rules {
    let absent = calls(thread).filter(|(_, call)| call.with == With::Absence);
    absent.map(|(number, _)| (number, Vec::new())).collect()
}

fn allowed(thread: Thread, kvm: &KvmRequests) -> Result<Rules, FilterError> {
    calls(thread)
        .map(|(number, call)| Ok((number, rules(call.with, thread, kvm)?)))
        .collect()
}

/// The ways in which a call may be made; none means any.
fn rules(with: With, thread: Thread, kvm: &KvmRequests) -> Result<Vec<SeccompRule>, FilterError> {
    let has = |argument, mask: i32, wanted: i32| {
        let mask = u64::from(mask.unsigned_abs());
        rule(
            argument,
            SeccompCmpOp::MaskedEq(mask),
            u64::from(wanted.unsigned_abs()),
        )
    };
    let is = |argument, value| rule(argument, SeccompCmpOp::Eq, value);
    let each = |values: Vec<u64>, argument| values.into_iter().map(|value| is(argument, value)).collect();
    match with {
        With::Anything | With::Absence => Ok(Vec::new()),
        With::Requests => each(requests(thread, kvm), 1),
        With::NoExecution => Ok(vec![has(2, libc::PROT_EXEC, 0)?]),
        With::AThread => Ok(vec![has(0, libc::CLONE_THREAD, libc::CLONE_THREAD)?]),
        With::Unix => Ok(vec![is(0, u64::from(libc::AF_UNIX.unsigned_abs()))?]),
        With::Ourselves => Ok(vec![is(0, std::process::id().into())?]),
        With::NothingNew => Ok(vec![is(2, 0)?]),
        With::OneOf(values) => each(values.to_vec(), 0),
    }
}

/// A rule about one argument. All of those that are looked at are numbers of 32 bits, but for pointers, which are
/// compared with null only.
fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, FilterError> {
    let length = if value == 0 && operator == SeccompCmpOp::Eq {
        SeccompCmpArgLen::Qword
    } else {
        SeccompCmpArgLen::Dword
    };
    SeccompCondition::new(argument, length, operator, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(FilterError::Rules)
}

/// The requests of a thread. Those that a running guest makes come first, as they are compared in this order.
fn requests(thread: Thread, kvm: &KvmRequests) -> Vec<u64> {
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
    tables.concat().into_iter().map(u64::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_has_a_filter_that_names_it() {
        for thread in [Thread::Main, Thread::Vcpu, Thread::Disk, Thread::Launcher] {
            let programs = programs(thread, &KvmRequests::default(), false).unwrap();
            let traps: Vec<u32> = programs
                .iter()
                .flatten()
                .filter(|instruction| instruction.code == RET_K && instruction.k & 0xffff_0000 == RET_TRAP)
                .map(|instruction| instruction.k & 0xffff)
                .collect();
            assert!(
                !traps.is_empty() && traps.iter().all(|data| *data == thread as u32),
                "{thread:?}: {traps:?}"
            );
        }
    }

    #[test]
    fn what_a_thread_may_the_thread_that_starts_it_may_too() {
        let main: Vec<i64> = calls(Thread::Main).map(|(number, _)| number).collect();
        for thread in [Thread::Vcpu, Thread::Disk] {
            assert!(calls(thread).all(|(number, _)| main.contains(&number)));
            assert!(calls(thread).count() < main.len());
        }
    }
}
