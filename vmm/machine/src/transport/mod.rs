//! Where virtio devices sit, and so how the guest finds them: in fixed windows, or on a PCI bus.

mod mmio;
mod pci;

use std::sync::Arc;

use rvmm_devices::bus::Bus;
use rvmm_devices::pci::Function;
use rvmm_devices::virtio::VirtioDevice;
use rvmm_hypervisor::Vm;
use rvmm_spec::{Spec, Transport};
use vm_memory::GuestMemoryMmap;

use crate::MachineError;
use crate::interrupts::Wiring;
use crate::slots::{Backend, Slot};
use mmio::MmioSlots;
pub use pci::PciBus;

/// The places for devices of one machine, filled in the order that both backends keep.
pub enum Places {
    /// Eight windows.
    Mmio(MmioSlots),
    /// A bus.
    Pci(PciBus),
}

// === impl Places ===

impl Places {
    /// The places that this machine has, all empty.
    ///
    /// # Errors
    /// Never, with the machine's own map.
    pub fn new(
        spec: &Spec,
        bus: &Bus,
        wiring: &Wiring,
        vm: &Arc<dyn Vm>,
        memory: &GuestMemoryMmap,
    ) -> Result<Self, MachineError> {
        let (vm, memory) = (Arc::clone(vm), memory.clone());
        Ok(match spec.transport() {
            Transport::Mmio => Self::Mmio(MmioSlots::new(vm, memory)),
            Transport::Pci => Self::Pci(PciBus::new(bus, wiring, vm, memory, spec.memory().bytes())?),
        })
    }

    /// Puts a device into the next place.
    ///
    /// # Errors
    /// When there is none left, or the host has no more descriptors.
    pub fn plug(
        &mut self,
        bus: &Bus,
        wiring: &Wiring,
        device: Box<dyn VirtioDevice>,
        backend: Option<Backend>,
    ) -> Result<Slot, MachineError> {
        match self {
            Self::Mmio(slots) => slots.plug(bus, wiring, device, backend),
            Self::Pci(pci) => pci.plug(device, wiring, backend).map(|(_, slot)| slot),
        }
    }

    /// Puts in a function that is no virtio device. Where those are not on PCI, it gets a bus of its own, above so much RAM.
    ///
    /// # Errors
    /// When there is no place left.
    pub fn plug_function(
        &self,
        bus: &Bus,
        wiring: &Wiring,
        ram: u64,
        function: Function,
    ) -> Result<(), MachineError> {
        match self {
            Self::Mmio(slots) => slots.pci_bus(bus, wiring, ram)?.plug_function(function),
            Self::Pci(pci) => pci.plug_function(function),
        }
    }

    /// The bus whose free places are for devices that are plugged in, if there is one.
    pub fn into_bus(self) -> Option<PciBus> {
        match self {
            Self::Mmio(_) => None,
            Self::Pci(pci) => Some(pci),
        }
    }
}
