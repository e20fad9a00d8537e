//! The trap handler: what goes wrong is noted and skipped.
//!
//! An instruction that faults is passed over; a fetch that faults returns to the caller. `sscratch` points to the
//! hart's [`Frame`].
#![expect(unsafe_code, reason = "the handler is assembly, and shares its notes with us")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// What a hart's handler saves and notes. The handler knows the order.
#[repr(C)]
struct Frame {
    saved: [AtomicU64; 3],
    cause: AtomicU64,
    count: AtomicU64,
    value: AtomicU64,
}

#[unsafe(no_mangle)]
static TRAP_FRAMES: [Frame; 2] = [const {
    Frame {
        saved: [const { AtomicU64::new(0) }; 3],
        cause: AtomicU64::new(0),
        count: AtomicU64::new(0),
        value: AtomicU64::new(0),
    }
}; 2];

global_asm!(
    ".balign 4",
    ".globl trap_handler",
    "trap_handler:",
    "csrrw sp, sscratch, sp",
    "sd t0, 0(sp)",
    "sd t1, 8(sp)",
    "sd t2, 16(sp)",
    "csrr t0, scause",
    "sd t0, 24(sp)",
    "ld t1, 32(sp)",
    "addi t1, t1, 1",
    "sd t1, 32(sp)",
    "csrr t1, stval",
    "sd t1, 40(sp)",
    // A fetch: back to the caller.
    "mv t1, ra",
    "li t2, 1",
    "bleu t0, t2, 2f",
    "li t2, 12",
    "beq t0, t2, 2f",
    // Anything else: on with the next instruction, two or four bytes further.
    "csrr t1, sepc",
    "lhu t0, 0(t1)",
    "andi t0, t0, 3",
    "addi t1, t1, 2",
    "li t2, 3",
    "bne t0, t2, 2f",
    "addi t1, t1, 2",
    "2:",
    "csrw sepc, t1",
    "ld t0, 0(sp)",
    "ld t1, 8(sp)",
    "ld t2, 16(sp)",
    "csrrw sp, sscratch, sp",
    "sret",
);

/// How often the first hart trapped so far.
pub fn count() -> u64 {
    TRAP_FRAMES[0].count.load(Ordering::Relaxed)
}

/// Why it trapped last.
pub fn last_cause() -> u64 {
    TRAP_FRAMES[0].cause.load(Ordering::Relaxed)
}
