//! ISA extensions as one-regs: switched by name before the first run, and what can be switched at all.

use kvm_ioctls::VcpuFd;

use super::registers::{ISA_EXT, SBI_EXT, get};
use crate::isa::{EXTENSIONS, Extension, find};
use crate::{HypervisorError, Offer, Offers};

/// SBI extensions by the index of their one-reg (`KVM_RISCV_SBI_EXT_*` of Linux's uapi).
const SBI: [(&str, u64); 13] = [
    ("legacy", 0),
    ("TIME", 1),
    ("IPI", 2),
    ("RFENCE", 3),
    ("SRST", 4),
    ("HSM", 5),
    ("PMU", 6),
    ("experimental", 7),
    ("vendor", 8),
    ("DBCN", 9),
    ("STA", 10),
    ("SUSP", 11),
    ("FWFT", 12),
];

/// Brings a vCPU's extensions to the states that are wanted.
pub(super) fn switch(vcpu: &VcpuFd, wanted: &[(String, bool)]) -> Result<(), HypervisorError> {
    for (name, on) in wanted {
        let extension = find(name)?;
        let Some(is_on) = state(vcpu, extension) else {
            // Off is what it is already.
            if *on {
                let name = name.clone();
                let has = names(vcpu, |vcpu, ext| state(vcpu, ext) == Some(true));
                return Err(HypervisorError::NoExtension { name, has });
            }
            continue;
        };
        if is_on != *on && !set(vcpu, extension, *on) {
            return Err(HypervisorError::FixedExtension {
                name: name.clone(),
                state: if *on { "on" } else { "off" },
                possible: names(vcpu, |vcpu, ext| offer(vcpu, ext) == Offer::On),
            });
        }
    }
    Ok(())
}

/// What the host does with each extension.
pub(super) fn offers(vcpu: &VcpuFd) -> Offers {
    let isa = EXTENSIONS
        .iter()
        .map(|&extension| (extension.name, offer(vcpu, extension)));
    let sbi = SBI
        .iter()
        .filter_map(|&(name, id)| Some((name, get(vcpu, SBI_EXT | id).ok()? != 0)));
    Offers {
        isa: isa.collect(),
        sbi: sbi.collect(),
    }
}

/// `None` where the host has none, or KVM is too old to know it.
fn state(vcpu: &VcpuFd, extension: Extension) -> Option<bool> {
    get(vcpu, ISA_EXT | u64::from(extension.kvm_id))
        .ok()
        .map(|value| value != 0)
}

fn set(vcpu: &VcpuFd, extension: Extension, on: bool) -> bool {
    let id = ISA_EXT | u64::from(extension.kvm_id);
    vcpu.set_one_reg(id, &u64::from(on).to_ne_bytes()).is_ok()
}

/// Tries the other state, and goes back.
fn offer(vcpu: &VcpuFd, extension: Extension) -> Offer {
    match state(vcpu, extension) {
        None => Offer::Absent,
        Some(on) => match (on, set(vcpu, extension, !on) && set(vcpu, extension, on)) {
            (true, true) => Offer::On,
            (true, false) => Offer::Always,
            (false, true) => Offer::Off,
            (false, false) => Offer::Absent,
        },
    }
}

fn names(vcpu: &VcpuFd, wanted: impl Fn(&VcpuFd, Extension) -> bool) -> String {
    let found = EXTENSIONS.iter().filter(|&&extension| wanted(vcpu, extension));
    found
        .map(|extension| extension.name)
        .collect::<Vec<_>>()
        .join(", ")
}
