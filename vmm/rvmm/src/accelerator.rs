//! Which backend runs the machine, and why.

use anyhow::bail;
use rvmm_control::Accelerator;
use rvmm_hypervisor::Unavailable;
use rvmm_spec::AcceleratorChoice;

/// A backend and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What runs the guest.
    pub accelerator: Accelerator,
    /// Why, in a sentence.
    pub reason: String,
    /// Whether the user should be told: something slower than hoped for was chosen.
    pub notable: bool,
}

/// Chooses the backend. `probe` is asked only where KVM may be used.
///
/// # Errors
/// KVM was demanded and is not there.
pub fn decide(
    choice: AcceleratorChoice,
    probe: impl FnOnce() -> Result<(), Unavailable>,
) -> anyhow::Result<Decision> {
    let tcg = |reason, notable| Decision {
        accelerator: Accelerator::Tcg,
        reason,
        notable,
    };
    let kvm = |reason: &str| Decision {
        accelerator: Accelerator::Kvm,
        reason: reason.to_owned(),
        notable: false,
    };
    match choice {
        AcceleratorChoice::Tcg => Ok(tcg("TCG was asked for".to_owned(), false)),
        AcceleratorChoice::Auto => Ok(match probe() {
            Ok(()) => kvm("this host runs riscv64 guests in hardware"),
            Err(why) => tcg(format!("no RISC-V KVM here: {why}"), true),
        }),
        AcceleratorChoice::Kvm => match probe() {
            Ok(()) => Ok(kvm("KVM was asked for")),
            Err(why) => bail!("--accel kvm: no RISC-V KVM here: {why}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this build machine says, unless it is a riscv64 host with KVM.
    fn unavailable() -> Result<(), Unavailable> {
        Err(rvmm_hypervisor::probe()
            .err()
            .unwrap_or_else(|| Unavailable::new("no /dev/kvm")))
    }

    #[test]
    fn auto_takes_kvm_where_it_is_and_says_why_not_elsewhere() {
        assert_eq!(
            decide(AcceleratorChoice::Auto, || Ok(())).unwrap().accelerator,
            Accelerator::Kvm
        );
        let decision = decide(AcceleratorChoice::Auto, unavailable).unwrap();
        assert_eq!(decision.accelerator, Accelerator::Tcg);
        assert!(decision.notable && decision.reason.starts_with("no RISC-V KVM here: "));
    }

    #[test]
    fn kvm_refuses_and_tcg_never_looks() {
        assert!(decide(AcceleratorChoice::Kvm, unavailable).is_err());
        let looked = || -> Result<(), Unavailable> { unreachable!("TCG must not look at KVM") };
        assert_eq!(
            decide(AcceleratorChoice::Tcg, looked).unwrap().accelerator,
            Accelerator::Tcg
        );
    }
}
