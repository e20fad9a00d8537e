//! The life of the guest: which cases, one after the other, and what is said of each.
#![expect(
    clippy::panic,
    reason = "a machine that is not what the cases are made for is the harness's mistake"
)]

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::bare::{ecall, now};
use super::virtio::Virtio;
use super::{Verdict, devices, pci, say, transport, trap, tree};
use crate::{Backend, Case, Device, Expected};

/// The firmware's numbers: KVM's, and where a call to it switches the machine off.
const BASE: u64 = 0x10;
const IMPLEMENTATION: u64 = 1;
const KVM: i64 = 3;
const SYSTEM_RESET: u64 = 0x5352_5354;

/// Ticks in a second.
const SECOND: u64 = 10_000_000;
/// How long an answer may take that will come if it comes at all.
const PATIENCE: u64 = 30 * SECOND;
/// How long is looked for an answer that is not expected, once another device has answered.
const GLANCE: u64 = SECOND / 500;

static ANSWER_EXPECTED: AtomicBool = AtomicBool::new(true);
static MISUSED_RNG: AtomicBool = AtomicBool::new(false);
static HART: AtomicU64 = AtomicU64::new(0);
static ON_KVM: AtomicBool = AtomicBool::new(false);

/// Does what the command line says: `only=ID` one case, else all that the machine survives; `from=ID` those from there
/// on, `in=LETTERS` those of these categories. Then switches off.
pub fn run(hart: u64, tree: u64) {
    HART.store(hart, Ordering::Relaxed);
    let mut line = [0; tree::MAX_LINE];
    let len = tree::command_line(tree, &mut line);
    let line = core::str::from_utf8(&line[..len]).unwrap_or("");
    let (only, from) = (line.strip_prefix("only="), line.strip_prefix("from="));
    let letters = line.strip_prefix("in=");
    let (_, implementation) = ecall(BASE, IMPLEMENTATION, [0; 6]);
    ON_KVM.store(implementation == KVM.cast_unsigned(), Ordering::Relaxed);
    let backend = if on_kvm() { Backend::Kvm } else { Backend::Tcg };
    transport::look();
    let bus = if transport::on_pci() { "PCI" } else { "MMIO" };
    say::line(format_args!("hostile guest on {backend:?}, {bus}"));
    pci::place_everything();
    for device in devices::all() {
        device.up();
    }
    let mut count = 0;
    let skipped = |case: &&Case| from.is_some_and(|id| id != case.id);
    for case in crate::cases::all().skip_while(skipped) {
        let expected = case.expected(backend);
        let chosen = case.is_on_pci() == transport::on_pci()
            && letters.is_none_or(|letters| letters.contains(case.category()));
        let wanted = only.map_or(chosen && !expected.is_ending(), |id| id == case.id);
        if wanted {
            live_through(case, expected);
            count += 1;
        }
    }
    say::line(format_args!("cases {count}"));
    switch_off();
}

fn live_through(case: &Case, expected: Expected) {
    if expected.is_ending() {
        say::line(format_args!("begin {}", case.id));
    }
    let patient = matches!(expected.verdicts(), [word] if *word != "refused" && *word != "absent");
    ANSWER_EXPECTED.store(patient, Ordering::Relaxed);
    MISUSED_RNG.store(case.device == Device::Rng, Ordering::Relaxed);
    let verdict = (case.act)();
    ANSWER_EXPECTED.store(true, Ordering::Relaxed);
    pci::place_everything();
    let traps = trap::count();
    let why = match verdict {
        Verdict::Broken(why) => Some(why),
        _ if !devices::all().all(|device| device.canaries_live()) => {
            Some("a device wrote outside its buffers")
        }
        _ => devices::all_work(case.device).err(),
    };
    match why {
        Some(why) => say::line(format_args!(
            "case {} broken: {why} (traps {traps}, the last {})",
            case.id,
            trap::last_cause()
        )),
        None => say::line(format_args!("case {} {}", case.id, verdict.word())),
    }
}

fn switch_off() {
    // Shutdown, no reason. Where it comes back, the entry's loop waits for ever.
    let _ = ecall(SYSTEM_RESET, 0, [0; 6]);
}

/// Says why the guest cannot go on.
pub fn give_up(info: &PanicInfo<'_>) -> ! {
    say::line(format_args!("guest gave up: {}", info.message()));
    switch_off();
    loop {}
}

/// The hart that runs the cases.
pub fn hart() -> u64 {
    HART.load(Ordering::Relaxed)
}

/// Whether KVM runs us.
pub fn on_kvm() -> bool {
    ON_KVM.load(Ordering::Relaxed)
}

pub(super) fn expects_an_answer() -> bool {
    ANSWER_EXPECTED.load(Ordering::Relaxed)
}

pub(super) fn patience() -> u64 {
    if expects_an_answer() { PATIENCE } else { GLANCE }
}

/// How long is waited for what must come, whatever comes of the case.
pub(super) fn long_patience() -> u64 {
    PATIENCE
}

/// Has another device serve a request, which comes after all that was asked for before.
pub(super) fn let_others_work() {
    ANSWER_EXPECTED.store(true, Ordering::Relaxed);
    let worked = if MISUSED_RNG.load(Ordering::Relaxed) {
        devices::blk_works()
    } else {
        devices::rng_works()
    };
    ANSWER_EXPECTED.store(false, Ordering::Relaxed);
    assert!(worked, "another device answers no more");
}

/// A device that the machine must have.
pub(super) fn needed(device: Option<Virtio>) -> Virtio {
    device.unwrap_or_else(|| panic!("the machine lacks a device"))
}

/// Lets this much of a millisecond pass.
pub fn pause() {
    let end = now() + SECOND / 1000;
    while now() < end {}
}
