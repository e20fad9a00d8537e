//! The in-kernel AIA: APLIC for wires, an IMSIC for each vCPU.

use kvm_bindings::{
    KVM_DEV_RISCV_AIA_ADDR_APLIC, KVM_DEV_RISCV_AIA_CONFIG_HART_BITS, KVM_DEV_RISCV_AIA_CONFIG_IDS,
    KVM_DEV_RISCV_AIA_CONFIG_SRCS, KVM_DEV_RISCV_AIA_CTRL_INIT, KVM_DEV_RISCV_AIA_GRP_ADDR,
    KVM_DEV_RISCV_AIA_GRP_CONFIG, KVM_DEV_RISCV_AIA_GRP_CTRL, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_RISCV_AIA,
};
use kvm_ioctls::{DeviceFd, VmFd};

use crate::{Config, HypervisorError};

/// Each vCPU's IMSIC has one page.
const IMSIC_SIZE: u64 = 0x1000;

/// Creates and initialises the AIA of a VM whose vCPUs are all there. `None` where the host has none.
/// The mode stays as KVM chose it: guest interrupt files where the host has them, emulation elsewhere.
pub(super) fn create(vm: &VmFd, config: &Config) -> Result<Option<u32>, HypervisorError> {
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
    let ids = get_ids(&device)?;
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
    Ok(Some(ids))
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
