//! Filters as Linux runs them: classic BPF over what is known of a call (`seccomp(2)`, `struct seccomp_data`).
//!
//! ```text
//!   architecture ─► number, by halves ─► the row of that number ─► a way that fits its arguments ─► verdict
//! ```
//!
//! Installing a filter is what costs: Linux makes machine code of it, and runs it for each call that there is, to remember
//! which need no look at their arguments; those cost nothing from then on. A filter is therefore short, and searched by
//! halves. The rows one after the other that the crate seccompiler makes took three times as many instructions, in two
//! filters a thread, and nearly a fifth of the time to a guest's first step.

use seccompiler::{BpfProgram, sock_filter};

/// What becomes of a call (Linux, include/uapi/linux/seccomp.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Allow,
    /// It is made, and written to the kernel's log.
    Log,
    /// It is not made and answers with this error.
    Error(u16),
    /// It is not made; SIGSYS comes with this number.
    Trap(u16),
}

/// A call by its number, and what becomes of it.
#[derive(Debug, Clone)]
pub struct Row {
    /// The number.
    pub number: u32,
    /// How it may be made for the verdict to be its; none means any way.
    pub ways: Vec<Way>,
    /// The verdict.
    pub verdict: Verdict,
}

/// All of these words of the arguments are as they have to be. A few at most.
pub type Way = Vec<Word>;

/// Half of an argument.
#[derive(Debug, Clone, Copy)]
pub struct Word {
    /// Which of the six arguments.
    pub argument: u8,
    /// Its upper half.
    pub upper: bool,
    /// The bits that count.
    pub mask: u32,
    /// What they have to be.
    pub value: u32,
}

/// Loads a word of what is known of the call.
const LOAD: u16 = 0x20;
/// Takes away all but these bits of it.
const AND: u16 = 0x54;
/// Goes on behind `jt` more instructions if it is `k`, else behind `jf`.
const IF_EQUAL: u16 = 0x15;
/// The same if it is at least `k`.
const IF_AT_LEAST: u16 = 0x35;
/// Goes on behind `k` more instructions.
const JUMP: u16 = 0x05;
/// Ends with a verdict.
const RETURN: u16 = 0x06;

/// Where in what is known of a call its number is.
const NUMBER: u32 = 0;
/// Where its architecture is.
const ARCHITECTURE: u32 = 4;
/// Where its arguments are, of eight bytes each, the lower half first.
const ARGUMENTS: u32 = 16;
/// From here on numbers are calls of a second ABI of x86_64 (x32), which are the same calls once more.
const SECOND_ABI: u32 = 0x4000_0000;
/// The whole process ends.
const KILL_PROCESS: u32 = 0x8000_0000;

/// What this architecture is called there (`AUDIT_ARCH_*`, Linux, include/uapi/linux/audit.h).
fn architecture() -> Option<u32> {
    match std::env::consts::ARCH {
        "riscv64" => Some(0xc000_00f3),
        "x86_64" => Some(0xc000_003e),
        "aarch64" => Some(0xc000_00b7),
        _ => None,
    }
}

/// A filter: its row's verdict for each call that is made in one of the row's ways, `other` for all the rest, and `foreign` for
/// numbers that are no calls of ours. None where the architecture is not known.
pub fn program(mut rows: Vec<Row>, other: Verdict, foreign: Verdict) -> Option<BpfProgram> {
    rows.sort_by_key(|row| row.number);
    let mut program = vec![
        step(LOAD, ARCHITECTURE),
        branch(IF_EQUAL, architecture()?, 1, 0),
        step(RETURN, KILL_PROCESS),
        step(LOAD, NUMBER),
        branch(IF_AT_LEAST, SECOND_ABI, 0, 1),
        step(RETURN, foreign.number()),
    ];
    search(&rows, other, &mut program);
    Some(program)
}

/// Finds the last row that does not begin behind the call; the row itself looks whether it is its.
fn search(rows: &[Row], other: Verdict, program: &mut BpfProgram) {
    match rows.split_at(rows.len() / 2) {
        ([], []) => program.push(step(RETURN, other.number())),
        ([], rows) => rows.iter().for_each(|row| leaf(row, other, program)),
        (low, high) => {
            let first = high.first().map_or(u32::MAX, |row| row.number);
            program.push(branch(IF_AT_LEAST, first, 0, 1));
            // A conditional jump reaches 255 instructions, the other all that a filter may have. How far is known behind it.
            let jump = program.len();
            program.push(step(JUMP, 0));
            search(low, other, program);
            program[jump].k = u32::try_from(program.len() - jump - 1).unwrap_or(u32::MAX);
            search(high, other, program);
        }
    }
}

fn leaf(row: &Row, other: Verdict, program: &mut BpfProgram) {
    let ends = |verdict: Verdict| step(RETURN, verdict.number());
    program.extend([branch(IF_EQUAL, row.number, 1, 0), ends(other)]);
    if row.ways.is_empty() {
        program.push(ends(row.verdict));
        return;
    }
    let mut loaded = None;
    for way in &row.ways {
        let start = program.len();
        for word in way {
            word.look(&mut loaded, program);
        }
        program.push(ends(row.verdict));
        let end = program.len();
        let looks = program.iter_mut().enumerate().skip(start);
        for (at, look) in looks.filter(|(_, step)| step.code == IF_EQUAL) {
            look.jf = u8::try_from(end - at - 1).expect("a way is a few words");
        }
        // Behind a way of several words nobody knows which of them did not fit.
        loaded = loaded.filter(|_| way.len() == 1);
    }
    program.push(ends(other));
}

const fn step(code: u16, k: u32) -> sock_filter {
    branch(code, k, 0, 0)
}

const fn branch(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

// === impl Word ===

impl Word {
    /// The lower half of an argument is this.
    pub fn is(argument: u8, value: u32) -> Self {
        Self::has(argument, u32::MAX, value)
    }

    /// These bits of the lower half of an argument are this.
    pub fn has(argument: u8, mask: u32, value: u32) -> Self {
        Self {
            argument,
            upper: false,
            mask,
            value,
        }
    }

    /// All of an argument is null.
    pub fn null(argument: u8) -> Way {
        let lower = Self::is(argument, 0);
        let upper = Self { upper: true, ..lower };
        vec![lower, upper]
    }

    /// Goes on if the word is as it has to be; where to, if not, is written once the end of its way is known. `loaded` is the
    /// place of the word that is there already, whole.
    fn look(&self, loaded: &mut Option<u32>, program: &mut BpfProgram) {
        let place = ARGUMENTS + 8 * u32::from(self.argument) + 4 * u32::from(self.upper);
        if *loaded != Some(place) {
            program.push(step(LOAD, place));
        }
        *loaded = Some(place);
        if self.mask != u32::MAX {
            program.push(step(AND, self.mask));
            *loaded = None;
        }
        program.push(branch(IF_EQUAL, self.value, 0, 0));
    }
}

// === impl Verdict ===

impl Verdict {
    fn number(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Log => 0x7ffc_0000,
            Self::Error(error) => 0x0005_0000 | u32::from(error),
            Self::Trap(data) => 0x0003_0000 | u32::from(data),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A call as a filter sees it.
    #[derive(Debug, Clone, Copy, Default)]
    pub(crate) struct Made {
        pub(crate) number: u32,
        pub(crate) arguments: [u64; 6],
    }

    /// What Linux would make of it, by its description of the instructions.
    pub(crate) fn run(program: &[sock_filter], made: Made) -> u32 {
        let bytes = made.arguments.map(u64::to_le_bytes).concat();
        let halves = bytes
            .chunks_exact(4)
            .map(|half| u32::from_le_bytes(half.try_into().unwrap()));
        let known: Vec<u32> = [made.number, architecture().unwrap(), 0, 0]
            .into_iter()
            .chain(halves)
            .collect();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at].clone();
            let past = |taken| usize::from(if taken { jt } else { jf });
            at += 1;
            match code {
                LOAD => loaded = known[k as usize / 4],
                AND => loaded &= k,
                IF_EQUAL => at += past(loaded == k),
                IF_AT_LEAST => at += past(loaded >= k),
                JUMP => at += k as usize,
                RETURN => return k,
                _ => panic!("no such instruction: {code:#x}"),
            }
        }
    }

    /// The same without a program.
    fn expected(rows: &[Row], made: Made) -> u32 {
        let fits = |word: &Word| {
            let argument = made.arguments[usize::from(word.argument)];
            let half = if word.upper {
                argument >> 32
            } else {
                argument & 0xffff_ffff
            };
            half & u64::from(word.mask) == u64::from(word.value)
        };
        let row = rows.iter().find(|row| row.number == made.number);
        let row = row.filter(|row| row.ways.is_empty() || row.ways.iter().any(|way| way.iter().all(fits)));
        row.map_or(Verdict::Trap(7), |row| row.verdict).number()
    }

    fn word() -> impl Strategy<Value = Word> {
        let mask = prop_oneof![Just(u32::MAX), Just(1), Just(6)];
        (0..6_u8, any::<bool>(), mask, 0..4_u32).prop_map(|(argument, upper, mask, value)| Word {
            argument,
            upper,
            mask,
            value,
        })
    }

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let verdict = prop_oneof![Just(Verdict::Allow), Just(Verdict::Error(38)), Just(Verdict::Log)];
        let ways = proptest::collection::vec(proptest::collection::vec(word(), 1..3), 0..4);
        proptest::collection::btree_map(0..60_u32, (ways, verdict), 0..40).prop_map(|rows| {
            let rows = rows.into_iter();
            rows.map(|(number, (ways, verdict))| Row {
                number,
                ways,
                verdict,
            })
            .collect()
        })
    }

    proptest! {
        #[test]
        fn a_program_gives_every_call_the_verdict_of_its_row(rows in rows(), arguments in proptest::array::uniform6(0..4_u64)) {
            let arguments = arguments.map(|argument| argument | (argument & 1) << 32);
            let program = program(rows.clone(), Verdict::Trap(7), Verdict::Trap(9)).unwrap();
            for number in 0..64 {
                let made = Made { number, arguments };
                prop_assert_eq!(run(&program, made), expected(&rows, made));
            }
        }
    }

    #[test]
    fn numbers_of_another_abi_are_foreign() {
        let row = Row {
            number: SECOND_ABI + 1,
            ways: Vec::new(),
            verdict: Verdict::Allow,
        };
        let program = program(vec![row], Verdict::Allow, Verdict::Trap(9)).unwrap();
        let made = |number| Made {
            number,
            ..Made::default()
        };
        assert_eq!(run(&program, made(SECOND_ABI + 1)), Verdict::Trap(9).number());
        assert_eq!(run(&program, made(u32::MAX)), Verdict::Trap(9).number());
        assert_eq!(run(&program, made(0)), Verdict::Allow.number());
    }

    #[test]
    fn null_is_null_in_both_halves() {
        let row = Row {
            number: 5,
            ways: vec![Word::null(2)],
            verdict: Verdict::Allow,
        };
        let program = program(vec![row], Verdict::Trap(7), Verdict::Trap(9)).unwrap();
        let made = |third| Made {
            number: 5,
            arguments: [9, 9, third, 9, 9, 9],
        };
        assert_eq!(run(&program, made(0)), Verdict::Allow.number());
        assert_eq!(run(&program, made(1 << 32)), Verdict::Trap(7).number());
    }
}
