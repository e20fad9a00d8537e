//! What a machine boots: a kernel, and what is handed to it.

use std::path::PathBuf;

/// The command line when none is given.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0";

/// A kernel to start in S-mode, and what it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// A riscv64 `Image`, plain or gzip'd.
    pub kernel: PathBuf,
    /// The initial RAM disk, loaded as it is.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
}

// === impl Boot ===

impl Boot {
    /// This kernel with [`DEFAULT_CMDLINE`] and no initrd.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            kernel: kernel.into(),
            initrd: None,
            cmdline: DEFAULT_CMDLINE.to_owned(),
        }
    }
}
