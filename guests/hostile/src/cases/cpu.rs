//! G, the CPU: instructions and registers that a guest has no business with, and that it survives.

#[cfg(feature = "payload")]
use crate::payload::{bare::*, *};

cases! {
    "G-csr-hypervisor", Cpu, "the hypervisor's registers", ByHost Answered => || unless_trapped(|| hypervisor_registers(0));
    "G-csr-machine", Cpu, "the machine's registers", Illegal Refused => || unless_trapped(|| machine_registers(0));
    "G-csr-vendor", Cpu, "registers that a vendor may have", Illegal Refused => || unless_trapped(|| vendor_registers(0));
    "G-csr-debug", Cpu, "debug registers", Illegal Refused => || unless_trapped(|| debug_registers(0));
    "G-csr-counters", Cpu, "counters that may not be written", Illegal Refused => || unless_trapped(|| counters(0));
    "G-csr-storm", Cpu, "five thousand accesses to registers that there are not", Illegal Refused => || unless_trapped(|| (0..5000).for_each(|_| vendor_registers(0)));
    "G-csr-seed", Cpu, "a thousand reads of the entropy source", Illegal Refused => || unless_trapped(|| (0..1000).for_each(|_| seed(0)));
    "G-csr-seed-read-only", Cpu, "the entropy source is read without a write", Illegal Refused => || unless_trapped(|| seed_read_only(0));
    "G-instruction-modes", Cpu, "instructions of the machine and of the hypervisor", Illegal Refused => || unless_trapped(|| other_modes(0));
    "G-instruction-none", Cpu, "a breakpoint and instructions that are none", Illegal Refused => || unless_trapped(|| no_instructions(0));
    "G-instruction-storm", Cpu, "five thousand instructions that are none", Illegal Refused => || unless_trapped(|| (0..5000).for_each(|_| no_instructions(0)));
    "G-wait-timer-past", Cpu, "a thousand waits with a timer in the past", Answered Answered => || waits();
    "G-fetch-odd", Cpu, "a jump to an odd address, which begins at the even one below", Answered Answered => || unless_trapped(|| {store32(ARENA, 0x8067); fence(); jump(ARENA + 1);});
    "G-vector-device", Cpu, "a vector load, where the guest has no vectors", Illegal Refused => || unless_trapped(|| vector_load(UART));
    "G-rng-by-two-harts", Rng, "one hart resets the entropy device while the other one waits for it", Answered Answered => || two_harts(rng());
    "G-registers-by-two-harts", Uart, "two harts write the same registers at once", Answered Answered => || on_both_harts(|| {at_random_bytes(UART, 8); at_random(0x10_1000, 0x20);});
    "G-holes-by-two-harts", Memory, "two harts write to nowhere at once", Answered Answered => || on_both_harts(|| (0..5000).for_each(|at| store32(RAM_END + 4 * at, 0)));
    "G-kicks-by-two-harts", Blk, "two harts kick every queue at once", Answered Answered => || on(blk(), |_| on_both_harts(|| (0..50).for_each(|_| kick_everything())));
    "G-shootdown-race", Cpu, "two harts fence and interrupt each other", Answered Answered => || on_both_harts(|| (0..500).for_each(|_| {let _ = ecall(RFENCE, 0, [0, u64::MAX, 0, 0, 0, 0]); let _ = ecall(IPI, 0, [0, u64::MAX, 0, 0, 0, 0]);}));
}
