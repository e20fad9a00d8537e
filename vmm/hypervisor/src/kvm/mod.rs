//! KVM on riscv64. The order of [`create`] is the one that KVM accepts (Linux, arch/riscv/kvm):
//! memory, all vCPUs, their one-regs, then the AIA device and its init, and only then doorbells and the first run.

mod aia;
mod isa;
mod registers;
mod routes;
mod vcpu;
mod vm;

use std::sync::Arc;

use kvm_ioctls::{Kvm, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::{Config, Created, HypervisorError, Interrupts, Offers, Unavailable, Vcpu};
use vcpu::KvmVcpu;
use vm::KvmVm;

const DEVICE: &str = "/dev/kvm";

/// The sizes that the numbers in `requests.rs` hold.
const _: () = {
    assert!(size_of::<kvm_bindings::kvm_ioeventfd>() == 64);
    assert!(size_of::<kvm_bindings::kvm_irqfd>() == 32);
    assert!(size_of::<kvm_bindings::kvm_msi>() == 32);
    assert!(size_of::<kvm_bindings::kvm_irq_level>() == 8);
    assert!(size_of::<kvm_bindings::kvm_userspace_memory_region>() == 32);
    assert!(size_of::<kvm_bindings::kvm_enable_cap>() == 104);
    assert!(size_of::<kvm_bindings::kvm_one_reg>() == 16);
    assert!(size_of::<kvm_bindings::kvm_create_device>() == 12);
    assert!(size_of::<kvm_bindings::kvm_device_attr>() == 24);
};

/// Looks whether `/dev/kvm` can create a VM.
pub(crate) fn probe() -> Result<(), Unavailable> {
    let kvm = Kvm::new().map_err(|errno| {
        Unavailable::new(format!(
            "{DEVICE} cannot be opened: {}",
            std::io::Error::from(errno)
        ))
    })?;
    kvm.create_vm().map_err(|errno| {
        Unavailable::new(format!(
            "{DEVICE} cannot create a VM: {}",
            std::io::Error::from(errno)
        ))
    })?;
    Ok(())
}

/// Creates a VM with everything that must be there before its vCPUs run.
pub(crate) fn create(config: &Config) -> Result<Created, HypervisorError> {
    let kvm = Kvm::new().map_err(|errno| HypervisorError::kernel("/dev/kvm cannot be opened", errno))?;
    let fd = kvm
        .create_vm()
        .map_err(|errno| HypervisorError::kernel("KVM cannot create a VM", errno))?;
    set_memory(&fd, &config.memory)?;
    let mut vcpus = Vec::new();
    for id in 0..config.cpus {
        let vcpu = fd
            .create_vcpu(id.into())
            .map_err(|errno| HypervisorError::kernel("KVM cannot create a vCPU", errno))?;
        vcpus.push(vcpu);
    }
    for vcpu in &vcpus {
        registers::enable_debug_console(vcpu);
        isa::switch(vcpu, &config.isa)?;
    }
    let interrupts = aia::create(&fd, config)?.unwrap_or(Interrupts::Plic);
    let first = vcpus
        .first()
        .ok_or_else(|| HypervisorError::kernel("a VM needs a vCPU", std::io::ErrorKind::InvalidInput))?;
    let facts = registers::facts(first, interrupts)?;
    let vm = Arc::new(KvmVm::new(fd, config, &vcpus)?);
    let vcpus = vcpus
        .into_iter()
        .map(|fd| Box::new(KvmVcpu::new(fd, Arc::clone(&vm))) as Box<dyn Vcpu>)
        .collect();
    Ok(Created { vm, vcpus, facts })
}

/// Looks what KVM offers, on a VM of its own.
pub(crate) fn offers() -> Result<Offers, HypervisorError> {
    let kvm = Kvm::new().map_err(|errno| HypervisorError::kernel("/dev/kvm cannot be opened", errno))?;
    let vcpu = kvm.create_vm().and_then(|vm| vm.create_vcpu(0));
    let vcpu = vcpu.map_err(|errno| HypervisorError::kernel("KVM cannot create a VM with a vCPU", errno))?;
    // As guests get it.
    registers::enable_debug_console(&vcpu);
    Ok(isa::offers(&vcpu))
}

/// Shows guest RAM to KVM, one slot a region.
#[expect(unsafe_code, reason = "KVM is told to use this process's memory as guest RAM")]
fn set_memory(fd: &VmFd, memory: &GuestMemoryMmap) -> Result<(), HypervisorError> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let host = region
            .get_host_address(vm_memory::MemoryRegionAddress(0))
            .map_err(|error| {
                HypervisorError::kernel("guest RAM is not mapped", std::io::Error::other(error))
            })?;
        let entry = kvm_bindings::kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: host.addr() as u64,
        };
        // SAFETY: the region is a live mapping of exactly this address and length. `KvmVm` holds a clone of the
        // memory for as long as the VM's descriptor is open, so KVM never uses it after it is unmapped; the
        // regions of one `GuestMemoryMmap` do not overlap.
        unsafe { fd.set_user_memory_region(entry) }
            .map_err(|errno| HypervisorError::kernel("KVM refuses the guest's RAM", errno))?;
    }
    Ok(())
}
