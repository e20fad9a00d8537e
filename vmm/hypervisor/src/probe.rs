//! Can this host run a riscv64 guest in hardware, and if not, why.

use crate::{Config, Created, HypervisorError, Offer};

/// Why KVM cannot be used here, in words that go into a sentence: "KVM is not available: …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unavailable {
    reason: String,
}

/// What a host has for its guests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offers {
    /// ISA extensions by name.
    pub isa: Vec<(&'static str, Offer)>,
    /// SBI extensions by name, and whether a guest gets them.
    pub sbi: Vec<(&'static str, bool)>,
}

// === impl Unavailable ===

impl Unavailable {
    /// With this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// Looks whether a VM can be created here, by creating one.
///
/// # Errors
/// [`Unavailable`], with the reason.
#[cfg(all(target_arch = "riscv64", target_os = "linux"))]
pub fn probe() -> Result<(), Unavailable> {
    crate::kvm::probe()
}

/// Creates a VM, ready to run.
///
/// # Errors
/// The step that the host refused.
#[cfg(all(target_arch = "riscv64", target_os = "linux"))]
pub fn create(config: &Config) -> Result<Created, HypervisorError> {
    crate::kvm::create(config)
}

/// What this host does with each known ISA extension, in the order of [`crate::isa::EXTENSIONS`], and which SBI extensions
/// its KVM answers or hands to us.
///
/// # Errors
/// [`HypervisorError`], where no VM can be created.
#[cfg(all(target_arch = "riscv64", target_os = "linux"))]
pub fn offers() -> Result<Offers, HypervisorError> {
    crate::kvm::offers()
}

/// What this host does with each known ISA extension; on this architecture nothing.
///
/// # Errors
/// [`HypervisorError::Unavailable`], always.
#[cfg(not(all(target_arch = "riscv64", target_os = "linux")))]
pub fn offers() -> Result<Offers, HypervisorError> {
    probe()?;
    Ok(Offers::default())
}

/// Looks whether a VM can be created here; on this architecture it cannot.
///
/// # Errors
/// [`Unavailable`], always.
#[cfg(not(all(target_arch = "riscv64", target_os = "linux")))]
pub fn probe() -> Result<(), Unavailable> {
    Err(Unavailable::new(format!(
        "this machine is {}, not riscv64",
        std::env::consts::ARCH
    )))
}

/// Creates a VM; on this architecture it cannot.
///
/// # Errors
/// [`HypervisorError::Unavailable`], always.
#[cfg(not(all(target_arch = "riscv64", target_os = "linux")))]
pub fn create(_config: &Config) -> Result<Created, HypervisorError> {
    probe()?;
    Err(HypervisorError::Unavailable(Unavailable::new(
        "no hypervisor is compiled in",
    )))
}
