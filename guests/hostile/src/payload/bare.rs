//! Memory, registers and instructions of the bare machine: all that is `unsafe` here.
//!
//! Addresses are numbers, since most of those that the cases use are nobody's memory. What the program itself stands
//! on lies below [`ARENA`] and is never touched through here.
#![expect(
    unsafe_code,
    reason = "a bare machine is reached by raw addresses and instructions only"
)]

use core::arch::asm;

/// RAM from here on is the cases': rings, buffers, tables.
pub const ARENA: u64 = 0x8100_0000;
/// Memory of no device, for what is large: 24 MiB.
pub const SCRATCH: u64 = ARENA + (20 << 20);
/// Where RAM begins.
pub const RAM: u64 = 0x8000_0000;
/// Where it ends: the harness gives the guest 64 MiB.
pub const RAM_END: u64 = RAM + (64 << 20);

macro_rules! accesses {
    ($($(#[$doc:meta])* $load:ident $store:ident $from:literal $to:literal;)*) => {$(
        $(#[$doc])*
        pub fn $load(address: u64) -> u64 {
            let value;
            // SAFETY: one load; where it is refused, the trap handler skips it and the address stays in the register.
            unsafe { asm!(concat!($from, " {0}, 0({0})"), inout(reg) address => value, options(nostack)) };
            value
        }

        $(#[$doc])*
        pub fn $store(address: u64, value: u64) {
            // SAFETY: one store, to the arena or to no memory of this program; where it is refused, it is skipped.
            unsafe { asm!(concat!($to, " {1}, 0({0})"), in(reg) address, in(reg) value, options(nostack)) };
        }
    )*};
}

accesses! {
    /// One byte.
    load8 store8 "lbu" "sb";
    /// Two bytes.
    load16 store16 "lhu" "sh";
    /// Four bytes.
    load32 store32 "lwu" "sw";
    /// Eight bytes.
    load64 store64 "ld" "sd";
}

/// Fills memory of the arena.
pub fn fill(address: u64, len: u64, byte: u8) {
    let word = u64::from_ne_bytes([byte; 8]);
    (address..address + len)
        .step_by(8)
        .for_each(|at| store64(at, word));
}

/// Whether memory of the arena has nothing but this byte in it.
pub fn holds_only(address: u64, len: u64, byte: u8) -> bool {
    let word = u64::from_ne_bytes([byte; 8]);
    (address..address + len).step_by(8).all(|at| load64(at) == word)
}

/// Makes what was written visible to the devices before what is written next.
pub fn fence() {
    // SAFETY: orders memory, touches none.
    unsafe { asm!("fence iorw, iorw", "fence.i", options(nostack)) };
}

/// The time, in ticks of 100 ns.
pub fn now() -> u64 {
    let ticks;
    // SAFETY: reads a counter.
    unsafe { asm!("rdtime {}", out(reg) ticks, options(nomem, nostack)) };
    ticks
}

/// Calls the firmware: extension, function, arguments → error, value.
pub fn ecall(extension: u64, function: u64, args: [u64; 6]) -> (i64, u64) {
    let (error, value);
    // SAFETY: the calls that write memory are given addresses in the arena or outside RAM.
    unsafe {
        asm!("ecall",
            inlateout("a0") args[0] => error, inlateout("a1") args[1] => value,
            in("a2") args[2], in("a3") args[3], in("a4") args[4], in("a5") args[5],
            in("a6") function, in("a7") extension, options(nostack));
    }
    (error, value)
}

/// Jumps to an address; comes back when a fault there, or a return, leads here.
pub fn jump(address: u64) {
    // SAFETY: the trap handler returns to the caller where nothing can be fetched.
    unsafe { asm!("jalr ra, 0({})", in(reg) address, clobber_abi("C")) };
}

macro_rules! instructions {
    ($($(#[$doc:meta])* $name:ident $($text:literal)+;)*) => {$(
        $(#[$doc])*
        pub fn $name(address: u64) {
            // SAFETY: acts on a device's register, or on nothing; where it is refused, it is skipped.
            unsafe {
                asm!($($text),+, in("a0") address, out("a1") _, out("a2") _, out("a3") _, out("ft0") _, options(nostack));
            }
        }
    )*};
}

instructions! {
    /// A compressed load.
    compressed_load "c.lw a1, 0(a0)";
    /// A compressed store.
    compressed_store "c.li a1, 0" "c.sw a1, 0(a0)";
    /// A load into a floating-point register.
    float_load "flw ft0, 0(a0)";
    /// A load of eight bytes into a floating-point register.
    double_load "fld ft0, 0(a0)";
    /// A store out of a floating-point register.
    float_store "fmv.w.x ft0, zero" "fsw ft0, 0(a0)";
    /// An atomic addition.
    atomic_add "li a1, 1" "amoadd.w a2, a1, (a0)";
    /// An atomic exchange of eight bytes.
    atomic_swap "li a1, 0" "amoswap.d a2, a1, (a0)";
    /// A load that reserves.
    load_reserved "lr.w a1, (a0)";
    /// A store that depends on a reservation.
    store_conditional "li a1, 0" "sc.w a2, a1, (a0)";
    /// A vector load.
    vector_load ".option push" ".option arch, +v" "vsetivli a1, 4, e32, m1, ta, ma" "vle32.v v0, (a0)" ".option pop";
    /// Zeroes a cache block.
    cache_zero ".option push" ".option arch, +zicboz" "cbo.zero (a0)" ".option pop";
    /// Throws a cache block away.
    cache_invalidate ".option push" ".option arch, +zicbom" "cbo.inval (a0)" ".option pop";
    /// Reads and writes the entropy source's register.
    seed "csrrw a1, 0x015, zero";
    /// Reads it without writing, which is not allowed.
    seed_read_only "csrrs a1, 0x015, zero";
    /// Asks for an indirect register of the interrupt file that does not exist.
    interrupt_file_unknown "li a1, 0xff" "csrw 0x150, a1" "csrr a2, 0x151" "csrw 0x151, a2";
    /// Writes all enable bits of the interrupt file.
    interrupt_file_all "li a1, 0xc0" "csrw 0x150, a1" "li a2, -1" "csrw 0x151, a2" "csrw 0x151, zero";
    /// Claims from the interrupt file.
    interrupt_file_claim "csrrw a1, 0x15c, zero";
    /// The hypervisor's registers.
    hypervisor_registers "csrr a1, 0x600" "csrw 0x680, a0" "csrw 0x605, a0";
    /// The machine's registers.
    machine_registers "csrr a1, 0x300" "csrw 0x305, a0" "csrw 0x3a0, a0" "csrw 0x3b0, a0";
    /// Registers that a vendor may have.
    vendor_registers "csrr a1, 0x5c0" "csrw 0x5c0, a0" "csrr a1, 0x9c0" "csrr a1, 0xcc0";
    /// Debug registers.
    debug_registers "csrr a1, 0x7a0" "csrw 0x7b0, a0" "csrw 0x5a8, a0";
    /// Counters: read, written.
    counters "csrr a1, 0xc00" "csrr a1, 0xc1f" "csrw 0xc00, a0";
    /// Instructions of other modes.
    other_modes "mret" ".insn r 0x73, 0, 0x31, x0, x0, x0" ".insn r 0x73, 0, 0x11, x0, x0, x0";
    /// A breakpoint and an instruction that is none.
    no_instructions "ebreak" ".4byte 0xffffffff" ".2byte 0";
    /// Waits for an interrupt that waits already.
    wait "wfi";
}

/// Sets the register that switches paging on: from then on every instruction is looked up through `root`.
pub fn page_through(root: u64) {
    let satp = 8 << 60 | root >> 12;
    // SAFETY: nothing can be promised; the case that does this expects the guest's end.
    unsafe { asm!("csrw satp, {}", "sfence.vma", "nop", in(reg) satp, options(nostack)) };
}

/// Puts the trap handler at an address and traps.
pub fn trap_at(address: u64) {
    // SAFETY: nothing can be promised; the case that does this expects the guest to spin.
    unsafe { asm!("csrw stvec, {}", ".4byte 0xffffffff", in(reg) address, options(nostack)) };
}

/// Enables the timer's interrupt, so that waiting ends at once when it is due. It is never taken.
pub fn heed_the_timer(on: bool) {
    let bit = 1 << 5;
    // SAFETY: interrupts as such stay off.
    unsafe {
        match on {
            true => asm!("csrs sie, {}", in(reg) bit, options(nostack)),
            false => asm!("csrc sie, {}", in(reg) bit, options(nostack)),
        }
    }
}
