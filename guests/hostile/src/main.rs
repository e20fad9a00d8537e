//! Where the guest begins: the Image's header, a stack, memory that is zero, and on to its life.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the first instructions of a machine are assembly")]

use core::arch::global_asm;
use core::panic::PanicInfo;

use rvm_hostile::payload::life;

global_asm!(
    ".pushsection .head, \"ax\"",
    ".globl _start",
    "_start:",
    ".option push",
    ".option norvc",
    "j begin",
    "nop",
    ".option pop",
    // Documentation/arch/riscv/boot-image-header.rst.
    ".dword 0x200000",
    ".dword image_end - image_start",
    ".dword 0",
    ".word 2",
    ".word 0",
    ".dword 0",
    ".ascii \"RISCV\\0\\0\\0\"",
    ".ascii \"RSC\\x05\"",
    ".word 0",
    "begin:",
    "la t0, bss_start",
    "la t1, bss_end",
    "1: bgeu t0, t1, 2f",
    "sd zero, 0(t0)",
    "addi t0, t0, 8",
    "j 1b",
    "2: la sp, first_stack_end",
    "la t0, TRAP_FRAMES",
    "csrw sscratch, t0",
    "la t0, trap_handler",
    "csrw stvec, t0",
    "csrw sie, zero",
    // Floating point and vectors are on, so that their loads reach the devices.
    "li t0, 0x2200",
    "csrs sstatus, t0",
    "call guest_main",
    "3: wfi",
    "j 3b",
    ".globl second_hart",
    "second_hart:",
    "la sp, second_stack_end",
    "la t0, TRAP_FRAMES",
    "addi t0, t0, 48",
    "csrw sscratch, t0",
    "la t0, trap_handler",
    "csrw stvec, t0",
    "csrw sie, zero",
    "call second_main",
    "j 3b",
    ".popsection",
    ".pushsection .bss, \"aw\", @nobits",
    ".balign 16",
    ".skip 65536",
    "first_stack_end:",
    ".skip 65536",
    "second_stack_end:",
    ".popsection",
    // What the compiler calls for copies of memory, and a C library has elsewhere.
    ".globl memset",
    "memset:",
    "mv t0, a0",
    "1: beqz a2, 2f",
    "sb a1, 0(t0)",
    "addi t0, t0, 1",
    "addi a2, a2, -1",
    "j 1b",
    "2: ret",
    ".globl memcpy",
    "memcpy:",
    "mv t0, a0",
    "1: beqz a2, 2f",
    "lb t1, 0(a1)",
    "sb t1, 0(t0)",
    "addi a1, a1, 1",
    "addi t0, t0, 1",
    "addi a2, a2, -1",
    "j 1b",
    "2: ret",
    ".globl memcmp",
    ".globl bcmp",
    "memcmp:",
    "bcmp:",
    "1: beqz a2, 2f",
    "lbu t0, 0(a0)",
    "lbu t1, 0(a1)",
    "bne t0, t1, 3f",
    "addi a0, a0, 1",
    "addi a1, a1, 1",
    "addi a2, a2, -1",
    "j 1b",
    "2: li a0, 0",
    "ret",
    "3: sub a0, t0, t1",
    "ret",
);

/// The first hart, with what the firmware gives a kernel.
#[unsafe(no_mangle)]
extern "C" fn guest_main(hart: u64, tree: u64) {
    life::run(hart, tree);
}

/// The second hart, once a case has started it.
#[unsafe(no_mangle)]
extern "C" fn second_main() -> ! {
    rvm_hostile::payload::second_life()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    life::give_up(info)
}
