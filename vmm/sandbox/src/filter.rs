//! From the table of calls to seccomp filters of one kind of thread.
//!
//! ```text
//!   row ──► program of one call: let through, trap, or "no such call"     all of them, behind a search by halves ──► filter
//! ```
//!
//! What is in no row is trapped, with the thread's kind as the trap's data so that the handler can name it. A filter is
//! searched by halves for the sake of its installation: Linux runs it then for each call that there is, to remember which need
//! no look at their arguments; those cost nothing from then on.

use std::collections::BTreeMap;
use std::str::FromStr;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};
use syscalls::Sysno;

use crate::calls::{CALLS, Call, With};
use crate::{KvmRequests, Thread, launcher, requests};

/// How a program ends that traps (Linux, include/uapi/linux/seccomp.h); its lower half is the trap's data.
const RET_TRAP: u32 = 0x0003_0000;
/// The instruction that ends a program with a constant.
const RET_K: u16 = 0x06;
/// Loads a word of what is known of a call (`struct seccomp_data`).
const LOAD_WORD: u16 = 0x20;
/// Where in it the call's number is.
const NUMBER: u32 = 0;
/// Goes on at `jt` if what was loaded is at least `k`, else at `jf`; both count from the next instruction.
const JUMP_IF_AT_LEAST: u16 = 0x35;
/// Passes over `k` instructions.
const JUMP: u16 = 0x05;

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
    let program = program(thread, kvm, logged)?;
    seccompiler::apply_filter(&program).map_err(FilterError::Install)
}

fn program(thread: Thread, kvm: &KvmRequests, logged: bool) -> Result<BpfProgram, FilterError> {
    let stop = if logged {
        SeccompAction::Log
    } else {
        SeccompAction::Trap
    };
    if thread == Thread::Launcher {
        let program = build(launcher::denied(), SeccompAction::Allow, stop)?;
        return Ok(marked(program, thread));
    }
    let mut leaves = calls(thread)
        .map(|(number, call)| {
            let listed = match call.with {
                With::Absence => SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
                _ => SeccompAction::Allow,
            };
            let rules = Rules::from([(i64::from(number), rules(call.with, thread, kvm)?)]);
            Ok((number, build(rules, stop.clone(), listed)?))
        })
        .collect::<Result<Vec<_>, FilterError>>()?;
    leaves.sort_by_key(|(number, _)| *number);
    Ok(marked(search(&leaves), thread))
}

/// One program out of those of single calls, in the order of their numbers: the last that does not begin behind the call that
/// was made decides. Each holds its number and the architecture against what it is asked for by itself.
fn search(leaves: &[(u32, BpfProgram)]) -> BpfProgram {
    let mut program = vec![instruction(LOAD_WORD, NUMBER)];
    program.extend(halves(leaves));
    program
}

fn halves(leaves: &[(u32, BpfProgram)]) -> BpfProgram {
    let (low, high) = leaves.split_at(leaves.len() / 2);
    match (low, high) {
        ([], [(_, only)]) => only.clone(),
        (_, []) => Vec::new(),
        (_, [(first, _), ..]) => {
            let (low, high) = (halves(low), halves(high));
            // A conditional jump reaches 255 instructions, the other any number that a program may have.
            let is_high = sock_filter {
                jf: 1,
                ..instruction(JUMP_IF_AT_LEAST, *first)
            };
            let over = instruction(JUMP, u32::try_from(low.len()).unwrap_or(u32::MAX));
            [vec![is_high, over], low, high].concat()
        }
    }
}

const fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
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
fn calls(thread: Thread) -> impl Iterator<Item = (u32, &'static Call)> {
    let its = move |call: &&Call| thread == Thread::Main || call.also.contains(&thread);
    // A name that this architecture does not have is of another one.
    CALLS
        .iter()
        .filter(its)
        .filter_map(|call| Some((Sysno::from_str(call.name).ok()?.id().unsigned_abs(), call)))
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

    /// Where in what is known of a call its architecture is.
    const ARCHITECTURE: u32 = 4;

    #[test]
    fn every_thread_has_a_filter_that_names_it() {
        for thread in [Thread::Main, Thread::Vcpu, Thread::Disk, Thread::Launcher] {
            let program = program(thread, &KvmRequests::default(), false).unwrap();
            let traps: Vec<u32> = program
                .iter()
                .filter(|instruction| instruction.code == RET_K && instruction.k & 0xffff_0000 == RET_TRAP)
                .map(|instruction| instruction.k & 0xffff)
                .collect();
            assert!(
                !traps.is_empty() && traps.iter().all(|data| *data == thread as u32),
                "{thread:?}: {traps:?}"
            );
        }
    }

    /// What Linux makes of a call all of whose arguments are null: the constant that the program ends with.
    fn verdict(program: &[sock_filter], number: u32) -> u32 {
        // The architecture is what the program asks for.
        let asked = program.windows(2).find(|pair| pair[0].k == ARCHITECTURE).unwrap();
        let known = [number, asked[1].k];
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let branch = |taken| usize::from(if taken { jt } else { jf });
            at += 1;
            match code {
                LOAD_WORD => loaded = known.get(k as usize / 4).copied().unwrap_or(0),
                JUMP => at += k as usize,
                0x15 => at += branch(loaded == k),
                0x25 => at += branch(loaded > k),
                JUMP_IF_AT_LEAST => at += branch(loaded >= k),
                0x54 => loaded &= k,
                RET_K => return k,
                _ => panic!("no such instruction: {code:#x}"),
            }
        }
    }

    #[test]
    fn each_call_has_the_verdict_of_its_row_and_others_are_trapped() {
        for thread in [Thread::Main, Thread::Vcpu, Thread::Disk] {
            let rows: BTreeMap<u32, With> = calls(thread).map(|(number, call)| (number, call.with)).collect();
            let program = program(thread, &KvmRequests::default(), false).unwrap();
            let trapped = RET_TRAP | thread as u32;
            for number in 0..2000 {
                let wanted = match rows.get(&number) {
                    Some(With::Anything | With::NoExecution | With::NothingNew) => 0x7fff_0000,
                    Some(With::Absence) => 0x0005_0000 | libc::ENOSYS.unsigned_abs(),
                    Some(With::OneOf(values)) if values.contains(&0) => 0x7fff_0000,
                    // Null is no request, thread, family or process.
                    _ => trapped,
                };
                let found = verdict(&program, number);
                assert_eq!(found, wanted, "{thread:?}: {number} is {:?}", rows.get(&number));
            }
        }
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
