//! A VM as a whole: interrupts in, doorbells out.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use kvm_ioctls::{IoEventAddress, NoDatamatch, VcpuFd, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};
use vmm_sys_util::eventfd::EventFd;

use super::routes::Routes;
use crate::{Config, HypervisorError, Message, Vm};

vmm_sys_util::ioctl_iow_nr!(
    KVM_INTERRUPT,
    kvm_bindings::KVMIO,
    0x86,
    kvm_bindings::kvm_interrupt
);

/// `KVM_INTERRUPT_SET` and `KVM_INTERRUPT_UNSET` of Linux's uapi: `-1` and `-2` as unsigned.
const SET: u32 = u32::MAX;
const UNSET: u32 = u32::MAX - 1;

/// ROMs have the slots from here on; RAM has those from 0.
const ROM_SLOTS: u32 = 256;

pub(super) struct KvmVm {
    fd: VmFd,
    /// The vCPUs' descriptors once more: `KVM_INTERRUPT` may be called while another thread runs the vCPU.
    vcpus: Vec<OwnedFd>,
    refused: AtomicU64,
    routes: Routes,
    roms: Vec<GuestMemoryMmap>,
    /// Keeps guest RAM mapped for as long as KVM may use it. Behind the descriptor, so that it is dropped later.
    _memory: GuestMemoryMmap,
}

// === impl KvmVm ===

impl KvmVm {
    pub(super) fn new(fd: VmFd, config: &Config, vcpus: &[VcpuFd]) -> Result<Self, HypervisorError> {
        let vcpus = vcpus.iter().map(duplicate).collect::<Result<_, _>>()?;
        Ok(Self {
            fd,
            vcpus,
            refused: AtomicU64::new(0),
            routes: Routes::new(config.sources),
            roms: config.roms.clone(),
            _memory: config.memory.clone(),
        })
    }

    fn count(&self, refused: bool) {
        self.refused.fetch_add(refused.into(), Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "kvm-ioctls gives a vCPU's descriptor only as a number")]
fn duplicate(vcpu: &VcpuFd) -> Result<OwnedFd, HypervisorError> {
    // SAFETY: the descriptor is open for as long as `vcpu` is borrowed, which outlives this borrow of it.
    let fd = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
    fd.try_clone_to_owned()
        .map_err(|error| HypervisorError::kernel("a vCPU's descriptor cannot be duplicated", error))
}

impl Vm for KvmVm {
    fn pulse(&self, source: u32) {
        // An edge: the level must go back, or the next one would be no edge. An irqfd would never lower it.
        for level in [true, false] {
            self.count(self.fd.set_irq_line(source, level).is_err());
        }
    }

    fn set_level(&self, source: u32, high: bool) {
        self.count(self.fd.set_irq_line(source, high).is_err());
    }

    #[expect(unsafe_code, reason = "kvm-ioctls has no KVM_INTERRUPT for riscv64")]
    fn set_external(&self, vcpu: usize, high: bool) {
        let Some(fd) = self.vcpus.get(vcpu) else { return };
        let interrupt = kvm_bindings::kvm_interrupt {
            irq: if high { SET } else { UNSET },
        };
        // SAFETY: the descriptor is a vCPU's, and `KVM_INTERRUPT` reads one `kvm_interrupt`, which outlives the call.
        let result = unsafe { vmm_sys_util::ioctl::ioctl_with_ref(&fd.as_fd(), KVM_INTERRUPT(), &interrupt) };
        self.count(result != 0);
    }

    #[expect(
        unsafe_code,
        reason = "KVM is told to use this process's memory as the guest's"
    )]
    fn show_rom(&self, rom: usize, shown: bool) -> Result<(), HypervisorError> {
        let refused =
            |error: std::io::Error| HypervisorError::kernel("KVM refuses to show the guest its flash", error);
        let nothing = || refused(std::io::ErrorKind::NotFound.into());
        let region = self
            .roms
            .get(rom)
            .and_then(|memory| memory.iter().next())
            .ok_or_else(nothing)?;
        let host = region
            .get_host_address(MemoryRegionAddress(0))
            .map_err(|error| refused(std::io::Error::other(error)))?;
        let slot = u32::try_from(rom).ok().and_then(|rom| ROM_SLOTS.checked_add(rom));
        let entry = kvm_bindings::kvm_userspace_memory_region {
            slot: slot.ok_or_else(nothing)?,
            flags: kvm_bindings::KVM_MEM_READONLY,
            guest_phys_addr: region.start_addr().raw_value(),
            // A slot without length is none.
            memory_size: if shown { region.len() } else { 0 },
            userspace_addr: host.addr() as u64,
        };
        // SAFETY: the region is a live mapping of exactly this address and length, and stays one for as long as the VM's
        // descriptor is open: this VM holds it. It overlaps no other slot, since no RAM is at its address.
        unsafe { self.fd.set_user_memory_region(entry) }.map_err(|errno| refused(errno.into()))
    }

    fn bind_doorbell(
        &self,
        address: u64,
        value: Option<u32>,
        event: &EventFd,
    ) -> Result<(), HypervisorError> {
        let place = IoEventAddress::Mmio(address);
        let bound = match value {
            Some(value) => self.fd.register_ioevent(event, &place, value),
            None => self.fd.register_ioevent(event, &place, NoDatamatch),
        };
        bound.map_err(|errno| HypervisorError::kernel("KVM refuses a doorbell", errno))
    }

    fn unbind_doorbell(&self, address: u64, value: Option<u32>, event: &EventFd) {
        let place = IoEventAddress::Mmio(address);
        let unbound = match value {
            Some(value) => self.fd.unregister_ioevent(event, &place, value),
            None => self.fd.unregister_ioevent(event, &place, NoDatamatch),
        };
        self.count(unbound.is_err());
    }

    fn attach_message(&self, number: u32, event: &EventFd) -> Result<(), HypervisorError> {
        let gsi = self.routes.gsi(number)?;
        self.fd
            .register_irqfd(event, gsi)
            .map_err(|errno| HypervisorError::kernel("KVM refuses an interrupt's eventfd", errno))
    }

    fn route_message(&self, number: u32, message: Message) -> Result<(), HypervisorError> {
        self.routes.set(&self.fd, number, Some(message))
    }

    fn detach_message(&self, number: u32, event: &EventFd) {
        let gsi = self.routes.gsi(number);
        self.count(gsi.is_ok_and(|gsi| self.fd.unregister_irqfd(event, gsi).is_err()));
        self.count(self.routes.set(&self.fd, number, None).is_err());
    }
}
