//! The in-kernel AIA: APLIC for wires, an IMSIC for each vCPU.
//!
//! Where the host has no guest interrupt files, KVM emulates the IMSIC, and two things of it matter here (Linux 6.5 to 6.12 at
//! least, `arch/riscv/kvm/aia_imsic.c`):
//!
//! - Each interrupt makes KVM look at every identity, one after the other. So a VM has [`IDS`] of them, as QEMU's has, and
//!   not the 2047 that KVM would give it.
//! - What a guest writes to a register of 64 identities (`imsic_mrif_atomic_rmw`) is stored by `sc.w`, which is half of it: the
//!   upper 32 can never be enabled, and their interrupts never arrive. Nobody can mend that from here, but it can be seen
//!   ([`sound`]), and devices that would need more have wires instead.

use kvm_bindings::{
    KVM_DEV_RISCV_AIA_ADDR_APLIC, KVM_DEV_RISCV_AIA_CONFIG_HART_BITS, KVM_DEV_RISCV_AIA_CONFIG_IDS,
    KVM_DEV_RISCV_AIA_CONFIG_SRCS, KVM_DEV_RISCV_AIA_CTRL_INIT, KVM_DEV_RISCV_AIA_GRP_ADDR,
    KVM_DEV_RISCV_AIA_GRP_CONFIG, KVM_DEV_RISCV_AIA_GRP_CTRL, KVM_DEV_RISCV_AIA_GRP_IMSIC, kvm_create_device,
    kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_RISCV_AIA,
};
use kvm_ioctls::{DeviceFd, VmFd};

use crate::{Config, HypervisorError, Interrupts};

/// Each vCPU's IMSIC has one page.
const IMSIC_SIZE: u64 = 0x1000;

/// Identities of each IMSIC, where the host has as many.
const IDS: u32 = 255;

/// Those of them that a faulty IMSIC delivers: the lower half of its first register.
const SOUND_HALF: u32 = 31;

/// The register of an IMSIC that enables the identities from 0 to 63 (AIA specification, 3.8).
const EIE0: u32 = 0xc0;

/// Creates and initialises the AIA of a VM whose vCPUs are all there: what it delivers. `None` where the host has none.
/// The mode stays as KVM chose it: guest interrupt files where the host has them, emulation elsewhere.
pub(super) fn create(vm: &VmFd, config: &Config) -> Result<Option<Interrupts>, HypervisorError> {
    let mut request = kvm_create_device {
        type_: kvm_device_type_KVM_DEV_TYPE_RISCV_AIA,
        fd: 0,
        flags: 0,
    };
    let device = match vm.create_device(&mut request) {
        Ok(device) => device,
        Err(errno) if matches!(errno.errno(), libc::ENODEV | libc::EINVAL | libc::ENOTTY) => return Ok(None),
        Err(errno) => return Err(HypervisorError::kernel("KVM cannot create the AIA", errno)),
    };
    let ids = choose_ids(&device)?;
    let sources = config.sources.min(ids);
    let hart_bits = u8::BITS - config.cpus.saturating_sub(1).leading_zeros();
    set(
        &device,
        KVM_DEV_RISCV_AIA_GRP_CONFIG,
        KVM_DEV_RISCV_AIA_CONFIG_SRCS,
        &sources,
    )?;
    set(
        &device,
        KVM_DEV_RISCV_AIA_GRP_CONFIG,
        KVM_DEV_RISCV_AIA_CONFIG_HART_BITS,
        &hart_bits,
    )?;
    set(
        &device,
        KVM_DEV_RISCV_AIA_GRP_ADDR,
        KVM_DEV_RISCV_AIA_ADDR_APLIC,
        &config.aplic,
    )?;
    for cpu in 0..config.cpus {
        // The attribute of vCPU n is n + 1: 0 is the APLIC.
        set(
            &device,
            KVM_DEV_RISCV_AIA_GRP_ADDR,
            u32::from(cpu) + 1,
            &(config.imsic + u64::from(cpu) * IMSIC_SIZE),
        )?;
    }
    let init = attribute(KVM_DEV_RISCV_AIA_GRP_CTRL, KVM_DEV_RISCV_AIA_CTRL_INIT, 0);
    device
        .set_device_attr(&init)
        .map_err(|errno| HypervisorError::kernel("KVM cannot initialise the AIA", errno))?;
    let sound = sound(&device, ids);
    Ok(Some(Interrupts::Aia { ids, sound }))
}

/// Takes fewer identities than KVM offers.
fn choose_ids(device: &DeviceFd) -> Result<u32, HypervisorError> {
    let ids = get_ids(device)?;
    if ids <= IDS {
        return Ok(ids);
    }
    set(
        device,
        KVM_DEV_RISCV_AIA_GRP_CONFIG,
        KVM_DEV_RISCV_AIA_CONFIG_IDS,
        &IDS,
    )?;
    Ok(IDS)
}

/// The highest identity that is sure to arrive: whether one of the upper half can be enabled is tried at the first vCPU, which has not run. A
/// kernel that does not show its IMSICs is trusted.
fn sound(device: &DeviceFd, ids: u32) -> u32 {
    let upper = 1u64 << (SOUND_HALF + 1);
    let tried = set(device, KVM_DEV_RISCV_AIA_GRP_IMSIC, EIE0, &upper).and_then(|()| get_enabled(device));
    set(device, KVM_DEV_RISCV_AIA_GRP_IMSIC, EIE0, &0u64).ok();
    match tried {
        Ok(enabled) if enabled & upper == 0 => SOUND_HALF,
        _ => ids,
    }
}

/// What the first vCPU has enabled of the identities from 0 to 63.
#[expect(unsafe_code, reason = "KVM writes an attribute through a pointer")]
fn get_enabled(device: &DeviceFd) -> Result<u64, HypervisorError> {
    let mut enabled = 0u64;
    let mut get = attribute(
        KVM_DEV_RISCV_AIA_GRP_IMSIC,
        EIE0,
        (&raw mut enabled).expose_provenance() as u64,
    );
    // SAFETY: a register of an IMSIC is an unsigned long (Linux, Documentation/virt/kvm/devices/riscv-aia.rst), 64 bits on
    // riscv64, and `enabled` is one that lives through the call.
    unsafe { device.get_device_attr(&mut get) }
        .map_err(|errno| HypervisorError::kernel("KVM does not show an IMSIC", errno))?;
    Ok(enabled)
}

#[expect(unsafe_code, reason = "KVM writes an attribute through a pointer")]
fn get_ids(device: &DeviceFd) -> Result<u32, HypervisorError> {
    let mut ids = 0u32;
    let mut get = attribute(
        KVM_DEV_RISCV_AIA_GRP_CONFIG,
        KVM_DEV_RISCV_AIA_CONFIG_IDS,
        (&raw mut ids).expose_provenance() as u64,
    );
    // SAFETY: the IDS attribute is a u32 (Linux, Documentation/virt/kvm/devices/riscv-aia.rst), and `ids` is one that
    // lives through the call.
    unsafe { device.get_device_attr(&mut get) }
        .map_err(|errno| HypervisorError::kernel("KVM does not tell the AIA's identities", errno))?;
    Ok(ids)
}

/// Sets an attribute from a value that lives through the call; KVM only reads it.
fn set<T>(device: &DeviceFd, group: u32, attr: u32, value: &T) -> Result<(), HypervisorError> {
    let attribute = attribute(group, attr, (&raw const *value).expose_provenance() as u64);
    device
        .set_device_attr(&attribute)
        .map_err(|errno| HypervisorError::kernel("KVM refuses the AIA's layout", errno))
}

fn attribute(group: u32, attr: u32, addr: u64) -> kvm_device_attr {
    kvm_device_attr {
        flags: 0,
        group,
        attr: attr.into(),
        addr,
    }
}
