//! virtio-mmio: eight windows of fixed places, each with a wired interrupt of its own.

use std::sync::{Arc, Mutex};

use rvmm_devices::bus::Bus;
use rvmm_devices::virtio::transport::{CaughtAcks, INTERRUPT_ACK, QUEUE_NOTIFY};
use rvmm_devices::virtio::{MmioTransport, VirtioDevice};
use rvmm_hypervisor::{HypervisorError, Vm};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::PciBus;
use crate::MachineError;
use crate::interrupts::Wiring;
use crate::layout::virtio_slot;
use crate::slots::{Backend, Doorbells, Slot};

/// The windows, filled one after the other.
pub struct MmioSlots {
    vm: Arc<dyn Vm>,
    memory: GuestMemoryMmap,
    taken: u32,
}

// === impl MmioSlots ===

impl MmioSlots {
    /// None of them filled.
    pub fn new(vm: Arc<dyn Vm>, memory: GuestMemoryMmap) -> Self {
        Self { vm, memory, taken: 0 }
    }

    /// Puts a device into the next window, and makes the kernel ring its doorbells: a kick costs the guest no exit to
    /// us.
    pub fn plug(
        &mut self,
        bus: &Bus,
        wiring: &Wiring,
        device: Box<dyn VirtioDevice>,
        mut backend: Option<Backend>,
    ) -> Result<Slot, MachineError> {
        let (window, source) = virtio_slot(self.taken);
        self.taken += 1;
        let doorbells = Doorbells::new(&*device, backend.as_mut()).map_err(MachineError::Hypervisor)?;
        let line = wiring.line(source);
        let acks = self.catch_acks(window.base).map_err(MachineError::Hypervisor)?;
        let transport =
            MmioTransport::with_caught_acks(device, self.memory.clone(), line, doorbells.kick(), acks);
        for (queue, bell) in (0..).zip(doorbells.caught()) {
            self.vm
                .bind_doorbell(window.base + QUEUE_NOTIFY, Some(queue), bell)
                .map_err(MachineError::Hypervisor)?;
        }
        let slot = Slot::new(Arc::clone(transport.core()), doorbells, backend);
        bus.insert(window.into(), Arc::new(Mutex::new(transport)))
            .map_err(MachineError::Bus)?;
        Ok(slot)
    }

    /// A PCI bus beside them.
    ///
    /// # Errors
    /// Never, with the machine's own map.
    pub fn pci_bus(&self, bus: &Bus, wiring: &Wiring, ram: u64) -> Result<PciBus, MachineError> {
        PciBus::new(bus, wiring, Arc::clone(&self.vm), self.memory.clone(), ram)
    }

    /// Makes the kernel keep acknowledgements until the transport asks: half of the exits that an interrupt costs.
    fn catch_acks(&self, window: u64) -> Result<Box<CaughtAcks>, HypervisorError> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
            .map_err(|error| HypervisorError::kernel("no descriptor for acknowledgements", error))?;
        self.vm.bind_doorbell(window + INTERRUPT_ACK, Some(1), &event)?;
        Ok(Box::new(move || event.read().is_ok()))
    }
}
