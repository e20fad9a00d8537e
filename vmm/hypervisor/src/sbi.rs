//! SBI calls that KVM leaves to user space (RISC-V SBI specification, version 3.0).

/// Legacy `sbi_console_putchar`, extension 0x01.
pub const LEGACY_PUTCHAR: u64 = 0x01;
/// Legacy `sbi_console_getchar`, extension 0x02.
pub const LEGACY_GETCHAR: u64 = 0x02;
/// Debug console, "DBCN".
pub const DEBUG_CONSOLE: u64 = 0x4442_434E;

/// Functions of the debug console (chapter 12).
pub mod debug_console {
    /// `sbi_debug_console_write(num_bytes, base_lo, base_hi)`.
    pub const WRITE: u64 = 0;
    /// `sbi_debug_console_read(num_bytes, base_lo, base_hi)`.
    pub const READ: u64 = 1;
    /// `sbi_debug_console_write_byte(byte)`.
    pub const WRITE_BYTE: u64 = 2;
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// `a7`.
    pub extension: u64,
    /// `a6`.
    pub function: u64,
    /// `a0` to `a5`.
    pub args: [u64; 6],
}

/// What goes to `a0` and `a1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// `a0`: an SBI error, or a legacy call's result.
    pub error: i64,
    /// `a1`.
    pub value: u64,
}

/// `SBI_ERR_INVALID_PARAM`.
pub const INVALID_PARAM: i64 = -3;

// === impl Answer ===

impl Answer {
    /// Success with a value.
    pub fn ok(value: u64) -> Self {
        Self { error: 0, value }
    }

    /// Failure.
    pub fn error(error: i64) -> Self {
        Self { error, value: 0 }
    }
}
