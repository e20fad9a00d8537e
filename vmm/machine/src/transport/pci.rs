//! virtio-pci: functions on the bus of a host bridge, in slots from 1 on.

use std::sync::{Arc, Mutex, PoisonError};

use rvmm_devices::bus::Bus;
use rvmm_devices::pci::{Function, Host, Intx, PlugError, Wire};
use rvmm_devices::virtio::VirtioDevice;
use rvmm_devices::virtio::transport::pci::{self, PciWiring, notify_address};
use rvmm_hypervisor::{HypervisorError, MAX_MESSAGES, Vm};
use vm_memory::GuestMemoryMmap;

use crate::MachineError;
use crate::interrupts::Wiring;
use crate::layout::{PCI_ECAM, PCI_LOW, PCI_PINS, pci_high, pci_source};
use crate::slots::{Backend, Doorbells, Slot};

/// Messages that a slot can have: each of the 32 has its own numbers.
const MESSAGES_PER_SLOT: u32 = MAX_MESSAGES / 32;

/// The bus of a machine. The bridge takes functions in and out while the guest runs, too.
pub struct PciBus {
    host: Arc<Mutex<Host>>,
    wires: Vec<Arc<Wire>>,
    vm: Arc<dyn Vm>,
    memory: GuestMemoryMmap,
}

/// The doorbells of a function, which follow its BAR.
struct MovingDoorbells {
    vm: Arc<dyn Vm>,
    doorbells: Doorbells,
    at: Option<u64>,
}

// === impl PciBus ===

impl PciBus {
    /// Puts the bridge and its windows into the machine.
    ///
    /// # Errors
    /// Never, with the machine's own map.
    pub fn new(
        bus: &Bus,
        wiring: &Wiring,
        vm: Arc<dyn Vm>,
        memory: GuestMemoryMmap,
        ram: u64,
    ) -> Result<Self, MachineError> {
        let windows = [PCI_LOW, pci_high(ram)];
        let behind = Arc::new(Bus::new());
        let host = Host::new(Arc::clone(&behind), windows.map(Into::into).to_vec());
        let host = Arc::new(Mutex::new(host));
        bus.insert(PCI_ECAM.into(), Arc::<Mutex<Host>>::clone(&host))
            .map_err(MachineError::Bus)?;
        for window in windows {
            bus.bridge(window.into(), Arc::clone(&behind))
                .map_err(MachineError::Bus)?;
        }
        // A slot's pin 0 is a line that every fourth slot shares.
        let wires = (0..PCI_PINS).map(|slot| Arc::new(Wire::new(wiring.level(pci_source(slot, 0)))));
        Ok(Self {
            host,
            wires: wires.collect(),
            vm,
            memory,
        })
    }

    /// Plugs a device into the lowest free slot, and says which that is.
    ///
    /// # Errors
    /// When all slots are taken, or the host has no more descriptors.
    pub fn plug(
        &self,
        device: Box<dyn VirtioDevice>,
        wiring: &Wiring,
        mut backend: Option<Backend>,
    ) -> Result<(usize, Slot), MachineError> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = free_slot(&host)?;
        let doorbells = Doorbells::new(&*device, backend.as_mut()).map_err(MachineError::Hypervisor)?;
        let wiring = self
            .wire(slot, device.queue_sizes().len(), wiring, doorbells.clone())
            .map_err(MachineError::Hypervisor)?;
        let (function, core) = pci::function(device, self.memory.clone(), doorbells.kick(), wiring);
        host.plug(slot, function).map_err(MachineError::Pci)?;
        Ok((slot, Slot::new(core, doorbells, backend)))
    }

    /// Plugs in a function that needs nothing of the machine.
    ///
    /// # Errors
    /// When all slots are taken.
    pub fn plug_function(&self, function: Function) -> Result<(), MachineError> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = free_slot(&host)?;
        host.plug(slot, function).map_err(MachineError::Pci)
    }

    /// Takes out what is in a slot. Its driver finds all-ones from now on.
    pub fn unplug(&self, slot: usize) {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        drop(host.unplug(slot));
    }

    fn wire(
        &self,
        slot: usize,
        queues: usize,
        wiring: &Wiring,
        doorbells: Doorbells,
    ) -> Result<PciWiring, HypervisorError> {
        let number = u32::try_from(slot).unwrap_or(u32::MAX);
        // One vector a queue, and one for the configuration.
        let vectors = u32::try_from(queues).unwrap_or(u32::MAX).saturating_add(1);
        let first = number.saturating_mul(MESSAGES_PER_SLOT);
        Ok(PciWiring {
            intx: Arc::new(Intx::new(Arc::clone(&self.wires[slot % self.wires.len()]), slot)),
            messages: wiring.messages(first, vectors.min(MESSAGES_PER_SLOT))?,
            placed: Box::new(MovingDoorbells {
                vm: Arc::clone(&self.vm),
                doorbells,
                at: None,
            }),
        })
    }
}

fn free_slot(host: &Host) -> Result<usize, MachineError> {
    let none = MachineError::Pci(PlugError::NoSlot(rvmm_devices::pci::SLOTS));
    host.free_slot().ok_or(none)
}

// === impl MovingDoorbells ===

impl MovingDoorbells {
    fn remove(&mut self) {
        if let Some(base) = self.at.take() {
            for (queue, bell) in (0..).zip(self.doorbells.caught()) {
                self.vm.unbind_doorbell(notify_address(base, queue), None, bell);
            }
        }
    }
}

impl rvmm_devices::pci::Placed for MovingDoorbells {
    fn placed(&mut self, base: Option<u64>) {
        self.remove();
        if let Some(base) = base {
            for (queue, bell) in (0..).zip(self.doorbells.caught()) {
                // Where KVM has no room for one, the write comes to us instead, and rings the bell all the same.
                self.vm
                    .bind_doorbell(notify_address(base, queue), None, bell)
                    .ok();
            }
            self.at = Some(base);
        }
    }
}

impl Drop for MovingDoorbells {
    fn drop(&mut self) {
        self.remove();
    }
}
