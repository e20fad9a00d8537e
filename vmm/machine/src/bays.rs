//! Where devices are plugged in and pulled out while the guest runs: slots of its PCI bus.
//!
//! ```text
//!   plug:   open ─► function into the lowest free slot ─► a disk gets its thread, an interface the caller's event loop
//!   unplug: function out of its slot: registers, doorbells and interrupts are gone ─► thread ended, files closed
//! ```
//!
//! There is no controller that would tell a guest of it: it finds a new function when it looks at its bus again, and
//! should have let go of one before it is pulled out.

use std::sync::Arc;

use rvmm_backends::plugged::{Plugged, PluggedKind};
use rvmm_devices::virtio::VirtioDevice;
use rvmm_devices::virtio::net::Link;
use rvmm_sandbox::Sandbox;
use rvmm_spec::DeviceId;

use crate::gate::Gate;
use crate::interrupts::Wiring;
use crate::meters::Meters;
use crate::slots::{Backend, Slot};
use crate::transport::PciBus;
use crate::worker::Worker;
use crate::{MachineError, Subscriber, disks, network};

/// The slots of a machine's bus, and what was plugged into them.
pub struct Bays {
    bus: PciBus,
    wiring: Wiring,
    taken: Vec<Bay>,
}

struct Bay {
    id: DeviceId,
    slot: usize,
    /// A disk's thread.
    worker: Option<Worker>,
}

// === impl Bays ===

impl Bays {
    /// The slots of this bus that are free.
    pub fn new(bus: PciBus, wiring: Wiring) -> Self {
        Self {
            bus,
            wiring,
            taken: Vec::new(),
        }
    }

    /// Plugs a device in. What it needs of the caller's event loop is given back.
    ///
    /// # Errors
    /// What was opened for it is not what it should be, or the host has no more threads or descriptors.
    pub fn plug(
        &mut self,
        plugged: Plugged,
        sandbox: &Sandbox,
        gate: &Arc<Gate>,
        meters: &Meters,
    ) -> Result<Option<Subscriber>, MachineError> {
        let id = plugged.id;
        match plugged.kind {
            PluggedKind::Disk(disk, file) => {
                let (block, alarm) = disks::open_from(&disk, file, id.to_string(), gate, meters)?;
                let (number, slot) = self.insert(Box::new(block), alarm)?;
                let worker = Worker::start(id.to_string(), slot, sandbox).map_err(|error| {
                    self.bus.unplug(number);
                    MachineError::Thread(id.to_string(), error)
                })?;
                self.take(id, number, Some(worker));
                Ok(None)
            }
            PluggedKind::Lun(..) => Err(MachineError::Bay),
            PluggedKind::Net(net, queues) => {
                let (device, feeds) = network::interface_on(&net, queues, &Link::default())?;
                let (number, slot) = self.insert(device, feeds)?;
                self.take(id, number, None);
                Ok(Some(Box::new(slot)))
            }
        }
    }

    /// Pulls a device out; false if none has this name. The caller drops what it was given when it was plugged in.
    pub fn unplug(&mut self, id: &DeviceId) -> bool {
        let Some(at) = self.taken.iter().position(|bay| bay.id == *id) else {
            return false;
        };
        let bay = self.taken.swap_remove(at);
        self.bus.unplug(bay.slot);
        bay.worker.into_iter().for_each(Worker::stop);
        true
    }

    /// Ends what goes on in all of them.
    pub fn stop(self) {
        let workers = self.taken.into_iter().filter_map(|bay| bay.worker);
        workers.for_each(Worker::stop);
    }

    fn insert(
        &self,
        device: Box<dyn VirtioDevice>,
        backend: Option<Backend>,
    ) -> Result<(usize, Slot), MachineError> {
        self.bus.plug(device, &self.wiring, backend)
    }

    fn take(&mut self, id: DeviceId, slot: usize, worker: Option<Worker>) {
        self.taken.push(Bay { id, slot, worker });
    }
}
