//! The SCSI controller of a machine: which disks are on it, and what wakes those that wait.
//!
//! One thread serves all of its disks, so a flush of one that takes long holds up the others. What wakes them is the controller's, too,
//! as they come and go while its thread waits: one timer for the limits of all, one bell for when the machine goes on.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rvmm_backends::disk::{self, Timer};
use rvmm_devices::virtio::Kick;
use rvmm_devices::virtio::medium::{Alarm, BlockBackend};
use rvmm_devices::virtio::scsi::{Scsi, ScsiHandle, Unit, UnitOptions};
use rvmm_spec::{Disk, DiskBus, Spec};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::MachineError;
use crate::disks::{self, Waiting};
use crate::gate::Gate;
use crate::meters::Meters;
use crate::network::Fed;
use crate::slots::Backend;

/// A controller's disks. It holds what wakes them open, and so has to outlive the controller's place in an event loop.
pub struct Units {
    handle: ScsiHandle,
    timer: Arc<Mutex<Earliest>>,
    /// Rung by the gate.
    again: Arc<EventFd>,
    gate: Arc<Gate>,
    meters: Meters,
}

/// A controller that is behind its registers.
pub struct Controller {
    units: Units,
    kick: Arc<Kick>,
}

/// A timer that rings for whoever is the first to be woken; all of them look then, and those that still wait set it anew.
struct Earliest {
    timer: Timer,
    at: Duration,
}

/// A disk's share of it.
struct Shared(Arc<Mutex<Earliest>>);

// === impl Units ===

impl Units {
    /// A controller with the disks that this machine has on it from the start, and its device.
    ///
    /// # Errors
    /// What is wrong with an image, or that the host has no more descriptors.
    pub fn create(spec: &Spec, gate: &Arc<Gate>, meters: &Meters) -> Result<(Self, Fed), MachineError> {
        let timer = Timer::new().map_err(MachineError::Timer)?;
        let again = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(MachineError::Timer)?;
        let again = Arc::new(again);
        gate.ring_on_resume(&again);
        let queues = Scsi::REQUESTS..Scsi::REQUESTS + 1;
        let feeds = [again.as_raw_fd(), timer.as_raw_fd()].map(|fd| (fd, queues.clone()));
        let units = Self {
            handle: ScsiHandle::default(),
            timer: Arc::new(Mutex::new(Earliest {
                timer,
                at: Duration::ZERO,
            })),
            again,
            gate: Arc::clone(gate),
            meters: meters.clone(),
        };
        for (lun, (number, disk)) in (0..).zip(spec.disks_on(DiskBus::Scsi)) {
            let backend = disk::open(disk).map_err(MachineError::Disk)?;
            units.insert(lun, backend, disk, format!("disk{number}"))?;
        }
        let device = Scsi::new(units.handle.clone());
        Ok((
            units,
            (Box::new(device), Some(feeds.into_iter().collect::<Backend>())),
        ))
    }

    fn insert(
        &self,
        lun: u8,
        backend: Box<dyn BlockBackend>,
        disk: &Disk,
        name: String,
    ) -> Result<(), MachineError> {
        let options = UnitOptions {
            read_only: disk.read_only,
            serial: disk.serial.clone().unwrap_or_default(),
            cache: disks::cache(disk),
        };
        let image = self.meters.on(name.clone(), backend);
        let mut unit = Unit::new(image, &options);
        if let Some(on_error) = disks::on_error(disk) {
            let waiting = Waiting::new(name, &self.gate, &self.again);
            unit = unit.failing(on_error, Box::new(waiting));
        }
        if let Some(limits) = disks::limits(disk) {
            unit = unit.limited(limits, Box::new(Shared(Arc::clone(&self.timer))));
        }
        self.handle.insert(lun, unit).map_err(MachineError::Unit)
    }
}

// === impl Controller ===

impl Controller {
    /// The controller whose queues this kicks.
    pub fn new(units: Units, kick: Arc<Kick>) -> Self {
        Self { units, kick }
    }

    /// Plugs in a disk on an image that somebody else opened, and has the guest told.
    ///
    /// # Errors
    /// What is wrong with the image, or that its number is taken.
    pub fn plug(&self, lun: u8, disk: &Disk, file: File, name: String) -> Result<(), MachineError> {
        let backend = disk::open_from(disk, file).map_err(MachineError::Disk)?;
        self.units.insert(lun, backend, disk, name)?;
        (self.kick)(Scsi::EVENTS);
        Ok(())
    }

    /// Pulls a disk out, and has the guest told. The request that it has begun is ended first, its files are closed then.
    pub fn unplug(&self, lun: u8) {
        if self.units.handle.remove(lun) {
            (self.kick)(Scsi::EVENTS);
            (self.kick)(Scsi::REQUESTS);
        }
    }
}

// === impl Shared ===

impl Shared {
    fn with<T>(&self, with: impl FnOnce(&mut Earliest) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Alarm for Shared {
    fn now(&self) -> Duration {
        self.with(|earliest| earliest.timer.now())
    }

    fn ring_at(&mut self, at: Duration) {
        self.with(|earliest| {
            // One that has rung is none.
            let is_set = earliest.at > earliest.timer.now();
            earliest.at = if is_set { at.min(earliest.at) } else { at };
            earliest.timer.ring_at(earliest.at);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_rings_for_whoever_is_first() {
        let timer = Timer::new().unwrap();
        let start = timer.now();
        let earliest = Arc::new(Mutex::new(Earliest {
            timer,
            at: Duration::ZERO,
        }));
        let mut disks = [(); 3].map(|()| Shared(Arc::clone(&earliest)));
        let hour = Duration::from_secs(3600);
        let at = || earliest.lock().unwrap().at;
        disks[0].ring_at(start + 2 * hour);
        disks[1].ring_at(start + hour);
        disks[2].ring_at(start + 3 * hour);
        assert_eq!(at(), start + hour);
        // One that has passed gives way.
        disks[1].ring_at(start);
        assert_eq!(at(), start);
        disks[2].ring_at(start + hour);
        assert_eq!(at(), start + hour);
    }
}
