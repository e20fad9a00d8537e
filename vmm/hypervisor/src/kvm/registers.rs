//! One-regs: what the guest's CPUs are, and where they start.

use kvm_ioctls::VcpuFd;

use crate::isa::EXTENSIONS;
use crate::{Entry, Facts, HypervisorError, Interrupts, Mmu};

/// `KVM_REG_RISCV | KVM_REG_SIZE_U64`.
const U64: u64 = 0x8030_0000_0000_0000;
const CONFIG: u64 = U64 | 0x01 << 24;
const CORE: u64 = U64 | 0x02 << 24;
const TIMER: u64 = U64 | 0x04 << 24;
pub(super) const ISA_EXT: u64 = U64 | 0x07 << 24;
pub(super) const SBI_EXT: u64 = U64 | 0x08 << 24;

const CONFIG_ZICBOM_BLOCK: u64 = CONFIG | 1;
const CONFIG_ZICBOZ_BLOCK: u64 = CONFIG | 5;
const CONFIG_SATP_MODE: u64 = CONFIG | 6;
const CONFIG_ZICBOP_BLOCK: u64 = CONFIG | 7;
const CORE_PC: u64 = CORE;
const CORE_A0: u64 = CORE | 10;
const CORE_A1: u64 = CORE | 11;
const TIMER_FREQUENCY: u64 = TIMER;
const SBI_DBCN: u64 = SBI_EXT | 9;

/// Turns on SBI's debug console, which KVM leaves off. A kernel that is too old for it has the legacy console.
pub(super) fn enable_debug_console(vcpu: &VcpuFd) {
    vcpu.set_one_reg(SBI_DBCN, &1u64.to_ne_bytes()).ok();
}

/// Reads what the guest's CPUs are.
pub(super) fn facts(vcpu: &VcpuFd, interrupts: Interrupts) -> Result<Facts, HypervisorError> {
    let frequency = get(vcpu, TIMER_FREQUENCY)
        .map_err(|errno| HypervisorError::kernel("KVM does not tell the timer's frequency", errno))?;
    let timebase_hz = u32::try_from(frequency).map_err(|error| {
        HypervisorError::kernel(
            "the timer's frequency is out of range",
            std::io::Error::other(error),
        )
    })?;
    // KVM answers ENOENT for what the host has not or it does not know: absent, both.
    let has = |id: u32| get(vcpu, ISA_EXT | u64::from(id)).is_ok_and(|enabled| enabled != 0);
    let isa: Vec<&str> = EXTENSIONS
        .iter()
        .filter(|ext| has(ext.kvm_id))
        .map(|ext| ext.name)
        .collect();
    let block = |name: &str, id: u64| {
        let size = isa.contains(&name).then(|| get(vcpu, id).ok()).flatten()?;
        u32::try_from(size).ok().filter(|size| size.is_power_of_two())
    };
    Ok(Facts {
        timebase_hz,
        mmu: get(vcpu, CONFIG_SATP_MODE).ok().and_then(Mmu::from_satp_mode),
        cbom_block: block("zicbom", CONFIG_ZICBOM_BLOCK),
        cboz_block: block("zicboz", CONFIG_ZICBOZ_BLOCK),
        cbop_block: block("zicbop", CONFIG_ZICBOP_BLOCK),
        isa,
        interrupts,
    })
}

/// Sets where a vCPU starts. `scounteren` stays as KVM made it: the guest's vDSO reads `time` with it.
pub(super) fn set_entry(vcpu: &VcpuFd, entry: Entry) -> Result<(), HypervisorError> {
    for (id, value) in [
        (CORE_PC, entry.pc),
        (CORE_A0, entry.hart),
        (CORE_A1, entry.device_tree),
    ] {
        vcpu.set_one_reg(id, &value.to_ne_bytes())
            .map_err(|errno| HypervisorError::kernel("KVM refuses a vCPU's first registers", errno))?;
    }
    Ok(())
}

pub(super) fn get(vcpu: &VcpuFd, id: u64) -> Result<u64, kvm_ioctls::Error> {
    let mut value = [0; 8];
    vcpu.get_one_reg(id, &mut value)?;
    Ok(u64::from_ne_bytes(value))
}
