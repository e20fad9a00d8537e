//! Where devices are plugged in and pulled out while the guest runs: slots of its PCI bus, units of its SCSI controller.
//!
//! ```text
//!   plug:   open ─┬► function into the lowest free slot ─► a disk gets its thread, an interface the caller's event loop
//!                 └► unit of its number ─► event: the guest looks at it
//!   unplug: function out of its slot: registers, doorbells and interrupts are gone ─► thread ended, files closed
//!           unit out: its request ended, files closed ─► event: the guest lets go of it
//! ```
//!
//! On PCI there is no controller that would tell a guest of it: it finds a new function when it looks at its bus again, and
//! should have let go of one before it is pulled out.

use std::sync::Arc;

use rvmm_backends::plugged::{Plugged, PluggedKind};
use rvmm_devices::virtio::net::Link;
use rvmm_sandbox::Sandbox;
use rvmm_spec::DeviceId;

use crate::gate::Gate;
use crate::interrupts::Wiring;
use crate::meters::Meters;
use crate::scsi::Controller;
use crate::transport::PciBus;
use crate::worker::Worker;
use crate::{MachineError, Subscriber, disks, network};

/// What a machine has for devices that are plugged in, and what was plugged into it.
pub struct Bays {
    bus: Option<(PciBus, Wiring)>,
    scsi: Option<Controller>,
    taken: Vec<Bay>,
}

struct Bay {
    id: DeviceId,
    place: Place,
}

enum Place {
    /// Of the bus; with a disk's thread.
    Slot(usize, Option<Worker>),
    /// Of the controller.
    Unit(u8),
}

// === impl Bays ===

impl Bays {
    /// The free slots of this bus, the free units of this controller.
    pub fn new(bus: Option<(PciBus, Wiring)>, scsi: Option<Controller>) -> Self {
        Self {
            bus,
            scsi,
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
        let (place, subscriber): (_, Option<Subscriber>) = match plugged.kind {
            PluggedKind::Disk(disk, file) => {
                let (block, alarm) = disks::open_from(&disk, file, id.to_string(), gate, meters)?;
                let (bus, wiring) = self.bus.as_ref().ok_or(MachineError::Bay)?;
                let (number, slot) = bus.plug(Box::new(block), wiring, alarm)?;
                let worker = Worker::start(id.to_string(), slot, sandbox).map_err(|error| {
                    bus.unplug(number);
                    MachineError::Thread(id.to_string(), error)
                })?;
                (Place::Slot(number, Some(worker)), None)
            }
            PluggedKind::Lun(disk, file, lun) => {
                let scsi = self.scsi.as_ref().ok_or(MachineError::NoController)?;
                scsi.plug(lun, &disk, file, id.to_string())?;
                (Place::Unit(lun), None)
            }
            PluggedKind::Net(net, queues) => {
                let (device, feeds) = network::interface_on(&net, queues, &Link::default())?;
                let (bus, wiring) = self.bus.as_ref().ok_or(MachineError::Bay)?;
                let (number, slot) = bus.plug(device, wiring, feeds)?;
                (Place::Slot(number, None), Some(Box::new(slot)))
            }
        };
        self.taken.push(Bay { id, place });
        Ok(subscriber)
    }

    /// Pulls a device out; false if none has this name. The caller drops what it was given when it was plugged in.
    pub fn unplug(&mut self, id: &DeviceId) -> bool {
        let Some(at) = self.taken.iter().position(|bay| bay.id == *id) else {
            return false;
        };
        match self.taken.swap_remove(at).place {
            Place::Slot(number, worker) => {
                self.bus.iter().for_each(|(bus, _)| bus.unplug(number));
                worker.into_iter().for_each(Worker::stop);
            }
            Place::Unit(lun) => self.scsi.iter().for_each(|scsi| scsi.unplug(lun)),
        }
        true
    }

    /// Ends what goes on in all of them. What the controller does, its own thread ends.
    pub fn stop(self) {
        for bay in self.taken {
            if let Place::Slot(_, Some(worker)) = bay.place {
                worker.stop();
            }
        }
    }
}
