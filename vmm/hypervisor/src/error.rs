//! What can go wrong with a hypervisor.

use std::io;

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// A system call failed.
    #[error("{step}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
    /// The host cannot run a riscv64 guest in hardware.
    #[error(transparent)]
    Unavailable(#[from] crate::Unavailable),
    /// Not in the table of extensions.
    #[error("ISA extension '{0}' is not known; rvmm --cpu help lists those that are")]
    UnknownExtension(String),
    /// The host does not have it.
    #[error("ISA extension '{name}' cannot be switched on: this host does not have it; it has {has}")]
    NoExtension {
        /// What was wanted.
        name: String,
        /// What there is.
        has: String,
    },
    /// KVM has a say, too.
    #[error(
        "ISA extension '{name}' cannot be switched {state} on this host; these can be switched off: {possible}"
    )]
    FixedExtension {
        /// What was wanted.
        name: String,
        /// On or off.
        state: &'static str,
        /// What KVM lets go of.
        possible: String,
    },
    /// The guest did what KVM cannot emulate.
    #[error(
        "the guest did what this host cannot emulate (such as a vector, atomic or misaligned access to a device)"
    )]
    GuestFault(#[source] io::Error),
    /// KVM could not enter the guest.
    #[error("the guest could not be entered: hardware reason {0:#x}")]
    Entry(u64),
}

// === impl HypervisorError ===

impl HypervisorError {
    /// A step that the kernel refused, and its word.
    pub fn kernel(step: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Kernel {
            step,
            source: source.into(),
        }
    }
}
