//! G, what may end the guest: a boot for each of these where it does.

#[cfg(feature = "payload")]
use crate::payload::{bare::*, *};

cases! {
    "G-end-float-load", Uart, "a floating-point load from a register", Fault Answered => || unless_trapped(|| float_load(UART + 4));
    "G-end-double-load", Blk, "a floating-point load of eight bytes from a register", Fault Answered => || unless_trapped(|| double_load(raw_blk().base));
    "G-end-float-store", Uart, "a floating-point store to a register", Fault Answered => || unless_trapped(|| float_store(UART + 4));
    "G-end-atomic-add", Blk, "an atomic addition to a register", Fault Answered => || unless_trapped(|| atomic_add(raw_blk().base));
    "G-end-atomic-swap", Memory, "an atomic exchange with a hole", Fault Refused => || unless_trapped(|| atomic_swap(RAM_END));
    "G-end-load-reserved", Rtc, "a reservation on a register", Fault Answered => || unless_trapped(|| load_reserved(0x10_1000));
    "G-end-store-conditional", Rtc, "a conditional store to a register without a reservation", EndByHost Answered => || unless_trapped(|| store_conditional(0x10_1000));
    "G-end-misaligned-load", Rtc, "a load across two registers", Fault Refused => || unless_trapped(|| {load32(0x10_1002);});
    "G-end-misaligned-store", Rtc, "a store across two registers", Fault Refused => || unless_trapped(|| store32(0x10_1002, 0));
    "G-end-cache-zero", Uart, "a cache block of registers is zeroed", Fault Refused => || unless_trapped(|| cache_zero(0x1000_0000));
    "G-end-cache-invalidate", Uart, "a cache block of registers is thrown away", EndByHost Answered => || unless_trapped(|| cache_invalidate(0x1000_0000));
    "G-end-fetch-device", Uart, "instructions fetched from registers", Fault Refused => || unless_trapped(|| jump(0x10_1000));
    "G-end-fetch-hole", Memory, "instructions fetched from a hole", Fault Refused => || unless_trapped(|| jump(RAM_END));
    "G-end-page-table-device", Memory, "page tables in a device's registers", Fault Spins => || {page_through(0x1000_0000); Verdict::Answered};
    "G-end-page-table-hole", Memory, "page tables behind RAM", Fault Spins => || {page_through(RAM_END); Verdict::Answered};
    "G-end-trap-handler-device", Memory, "a trap handler in a device's registers", Fault Spins => || {trap_at(0x10_1000); Verdict::Answered};
    "G-end-all-harts-stop", Cpu, "the only hart that runs stops itself", Spins Spins => || sbi(HSM, 1, &[]);
    "G-end-wait-for-ever", Cpu, "a wait for interrupts that are all off", Spins Spins => || loop { wait(0) };
    "G-end-loop", Cpu, "a loop without an exit", Spins Spins => || loop {};
    "G-end-register-loop", Uart, "registers read for ever", Spins Spins => || loop { load8(UART + 5); };
    "G-end-kick-loop", Blk, "a queue with a request kicked for ever", Spins Spins => || on(blk(), |d| {full_of_reads(d); loop { d.kick(0); }});
    "G-end-hole-loop", Memory, "a hole written for ever by both harts", Spins Spins => || on_both_harts(|| loop { store32(RAM_END, 0) });
    "G-end-sbi-loop", Cpu, "calls of an extension that there is not, for ever", Spins Spins => || loop { let _ = sbi(0x0900_0000, 0, &[]); };
    "G-end-broken-ring-loop", Blk, "a device broken and reset for ever", Spins Spins => || loop { let _ = blk().offer(0, 0xffff).serve(0); };
    "G-end-off", Cpu, "off while a ring full of requests is under way", Off Off => || on(blk(), |d| {full_of_reads(d).kick(0); sbi(SRST, 0, &[0, 0])});
    "G-end-off-reason", Cpu, "off for a reason that there is not", Off Refused => || sbi(SRST, 0, &[0, 0xffff_ffff]);
    "G-end-off-of-old", Cpu, "off by the call of old", Refused Off => || sbi(8, 0, &[]);
    "G-end-off-busy", Cpu, "off while the other hart writes registers for ever", Off Off => || {start_other_hart(|| loop { store8(UART + 7, 0) }); life::pause(); sbi(SRST, 0, &[0, 0])};
    "G-end-off-by-two", Cpu, "off by both harts at once", Off Off => || on_both_harts(|| {let _ = ecall(SRST, 0, [0; 6]);});
    "G-end-off-and-reset", Syscon, "off and reset by two harts at once", OffOrReset OffOrReset => || {start_other_hart(|| loop { store32(0x10_0000, 0x7777) }); loop { store32(0x10_0000, 0x5555) }};
    "G-end-reset-cold", Cpu, "a cold reset with requests under way", Reset Reset => || on(blk(), |d| {full_of_reads(d).kick(0); sbi(SRST, 0, &[1, 0])});
    "G-end-reset-warm", Cpu, "a warm reset", Reset Reset => || sbi(SRST, 0, &[2, 1]);
    "G-end-register-off", Syscon, "off by the power register, in the lower half of a word of nonsense", Off Off => || {store32(0x10_0000, 0xabcd_5555); loop {}};
    "G-end-register-half", Syscon, "off by the power register, two bytes wide", Off Off => || {store16(0x10_0000, 0x5555); loop {}};
    "G-end-register-reset", Syscon, "a reset by the power register, over and over until it comes", Reset Reset => || loop { store32(0x10_0000, 0x7777) };
    "G-end-register-fail", Syscon, "off with the failure code 0xffff", Fault Fault => || {store32(0x10_0000, 0xffff_3333); loop {}};
    "G-end-hart-in-device", Cpu, "a hart started in a device's registers", Fault Answered => || start_other_hart_at(0x10_1000);
}
