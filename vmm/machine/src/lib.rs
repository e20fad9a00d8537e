//! Puts the parts of a machine together and keeps them running, under KVM, in this process.
//!
//! ```text
//!   Machine::start ─► assemble: RAM, VM, files, devices, device tree
//!        │                ├─► a thread a vCPU          (vcpu_loop)  ── News: paused, ended
//!        │                ├─► a thread a disk          (worker)     with an event loop of its own; one for all disks on SCSI
//!        │                └─► a subscriber a slot      (slots)      for the caller's event loop
//!        └ Machine::stop ─► flag, kicks until every thread is gone; RAM and VM go with the last of them
//! ```
//!
//! A machine lives for one boot. A reset makes a new one of the same Spec, so nothing of the old can leak into it:
//! no device state, no memory, no vCPU register. What must outlive a boot (console, control socket) is the caller's.

mod alarm;
mod assemble;
mod balloon;
mod bays;
mod console;
mod counters;
mod disks;
pub mod fdt;
mod firmware;
mod flash;
mod gate;
mod interrupts;
pub mod layout;
mod meters;
mod network;
mod scsi;
mod share;
mod slots;
#[cfg(test)]
mod tests;
mod transport;
mod vcpu_loop;
mod watchdog;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use event_manager::MutEventSubscriber;
use rvmm_backends::console::Hub;
use rvmm_backends::disk::DiskError;
use rvmm_backends::net::{PasstError, TapError};
use rvmm_backends::plugged::Plugged;
use rvmm_backends::vars::VarsError;
use rvmm_backends::vhost_net::VhostError;
use rvmm_backends::vhost_user::{Servers, ShareError};
use rvmm_backends::vsock::VsockError;
use rvmm_backends::{Agent, Lasting, OnNews};
use rvmm_boot::memory::GuestRam;
use rvmm_devices::BusError;
use rvmm_hypervisor::{Config, Created, HypervisorError};
use rvmm_sandbox::{Sandbox, Thread};
use rvmm_spec::{DeviceId, Outcome, Spec};

use alarm::Alarm;
pub use balloon::BalloonControl;
use bays::Bays;
use counters::Counters;
use gate::Gate;
use meters::Meters;
use slots::Slot;
use watchdog::Leash;
use worker::Worker;

/// A device's place in the event loop.
pub type Subscriber = Box<dyn MutEventSubscriber>;

/// A subscriber, and whose it is if that was plugged in.
pub type Feed = (Option<DeviceId>, Subscriber);

/// A guest that runs.
pub struct Machine {
    gate: Arc<Gate>,
    vcpus: Vec<JoinHandle<()>>,
    disks: Vec<Worker>,
    counters: Vec<Arc<Counters>>,
    hub: Hub,
    /// Its fences stand for as long as anyone uses it.
    _ram: GuestRam,
    watchdog: Option<Leash>,
    balloon: Option<BalloonControl>,
    meters: Meters,
    /// Where devices are plugged in.
    bays: Bays,
    /// For the threads of what is plugged in.
    sandbox: Sandbox,
}

/// Why a machine cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The host has not the memory, or not of the kind that was asked for.
    #[error(transparent)]
    Memory(rvmm_boot::memory::MemoryError),
    /// Kernel or initrd.
    #[error(transparent)]
    Boot(rvmm_boot::BootError),
    /// KVM refused.
    #[error(transparent)]
    Hypervisor(HypervisorError),
    /// A disk's file.
    #[error(transparent)]
    Disk(DiskError),
    /// A network interface.
    #[error(transparent)]
    Tap(TapError),
    /// A network of passt.
    #[error(transparent)]
    Passt(PasstError),
    /// The host's kernel does not move frames.
    #[error(transparent)]
    Vhost(VhostError),
    /// A specification that says so is refused before.
    #[error("vhost=on is for a network interface on a tap")]
    NoTap,
    /// A shared folder.
    #[error(transparent)]
    Share(ShareError),
    /// The sockets to programs of the host.
    #[error(transparent)]
    Vsock(VsockError),
    /// The host has not the memory for flash.
    #[error("memory for the firmware's flash cannot be had")]
    Flash(#[source] io::Error),
    /// The firmware's flash.
    #[error(transparent)]
    Vars(VarsError),
    /// The host has no descriptors for it.
    #[error("a console cannot be had")]
    Hub(#[source] io::Error),
    /// A timer of the clock's alarm or of the watchdog.
    #[error("a timer of the clock or the watchdog cannot be had")]
    Alarm(#[source] io::Error),
    /// The kernel gave no descriptor for the guest agent.
    #[error("no descriptor for the guest agent")]
    Agent(#[source] io::Error),
    /// The memory map is not a map.
    #[error("the memory map is wrong")]
    Bus(#[source] BusError),
    /// The PCI bus.
    #[error(transparent)]
    Pci(rvmm_devices::pci::PlugError),
    /// Windows are where they are.
    #[error("nothing can be plugged into this machine: its devices are not on PCI")]
    Bay,
    /// Its disks have nowhere to go.
    #[error("no disk can be plugged in on bus scsi: this machine has no controller")]
    NoController,
    /// A unit of the SCSI controller.
    #[error(transparent)]
    Unit(rvmm_devices::virtio::scsi::UnitError),
    /// The command line.
    #[error("the kernel's command line cannot be passed on")]
    Cmdline(#[source] linux_loader::cmdline::Error),
    /// The device tree.
    #[error("the device tree cannot be written")]
    DeviceTree(#[source] vm_fdt::Error),
    /// A machine always has one.
    #[error("the machine has no virtio console")]
    Console,
    /// The kernel gave none for the device tree.
    #[error("no random bytes for the guest")]
    Seed(#[source] io::Error),
    /// The host has no more descriptors.
    #[error("no timer for a device's limits")]
    Timer(#[source] io::Error),
    /// The host has no more threads.
    #[error("no thread for {0}")]
    Thread(String, #[source] io::Error),
}

// === impl Machine ===

impl Machine {
    /// Boots a machine, with what was plugged into it before, each of its threads confined. `on_news` is called from the
    /// vCPUs' threads; the first word, that it runs, is the caller's to say, unless the machine starts paused. The subscribers are to be added to the
    /// caller's event loop at once: the guest's networks answer there; those of devices that were plugged in come with
    /// their names.
    ///
    /// # Errors
    /// What is missing, or what the host refused; nothing is left behind then.
    pub fn start(
        spec: &Spec,
        lasting: &Lasting,
        plugged: Vec<Plugged>,
        sandbox: &Sandbox,
        on_news: OnNews,
    ) -> Result<(Self, Vec<Feed>), MachineError> {
        Self::start_on(rvmm_hypervisor::create, spec, lasting, plugged, sandbox, on_news)
    }

    /// The device tree that this machine's guest would find.
    ///
    /// # Errors
    /// As [`Machine::start`]: everything is looked at as for a boot.
    pub fn device_tree(spec: &Spec) -> Result<Vec<u8>, MachineError> {
        let hub = Hub::new().map_err(MachineError::Hub)?;
        let gate = Arc::new(Gate::new(spec.cpus(), spec.on_start(), Arc::new(drop)));
        let lasting = Lasting {
            hub,
            agent: Agent::new(Box::new(drop)).map_err(MachineError::Agent)?,
            servers: Servers::default(),
        };
        let assembled = assemble::assemble(spec, &lasting, &gate, rvmm_hypervisor::create)?;
        Ok(assembled.device_tree)
    }

    fn start_on(
        create: impl FnOnce(&Config) -> Result<Created, HypervisorError>,
        spec: &Spec,
        lasting: &Lasting,
        plugged: Vec<Plugged>,
        sandbox: &Sandbox,
        on_news: OnNews,
    ) -> Result<(Self, Vec<Feed>), MachineError> {
        let gate = Arc::new(Gate::new(spec.cpus(), spec.on_start(), on_news));
        let assembled = assemble::assemble(spec, lasting, &gate, create)?;
        let hub = &lasting.hub;
        let mut machine = Self {
            gate,
            vcpus: Vec::new(),
            disks: Vec::new(),
            counters: Vec::new(),
            hub: hub.clone(),
            _ram: assembled.ram,
            watchdog: assembled.watchdog,
            balloon: assembled.balloon,
            meters: assembled.meters,
            bays: assembled.bays,
            sandbox: *sandbox,
        };
        let feeds = match machine.plug_all(plugged) {
            Ok(feeds) => feeds,
            Err(error) => {
                machine.stop();
                return Err(error);
            }
        };
        hub.set_input(Some(assembled.input));
        if let Err(error) = machine.start_disks(assembled.disks, assembled.scsi) {
            machine.stop();
            return Err(error);
        }
        for (number, mut vcpu) in assembled.vcpus.into_iter().enumerate() {
            let (mut exits, gate) = (assembled.exits.for_another(), Arc::clone(&machine.gate));
            machine.counters.push(Arc::clone(&exits.counters));
            let name = format!("vcpu{number}");
            let thread = std::thread::Builder::new().name(name.clone());
            let sandbox = *sandbox;
            let spawned = thread.spawn(move || match sandbox.confine(Thread::Vcpu) {
                Ok(confined) => vcpu_loop::run(&mut *vcpu, &mut exits, &gate, &confined),
                Err(error) => gate.report(Outcome::Failed(vcpu_loop::one_line(&error))),
            });
            match spawned {
                Ok(thread) => machine.vcpus.push(thread),
                Err(error) => {
                    machine.stop();
                    return Err(MachineError::Thread(name, error));
                }
            }
        }
        let subscribers = subscribers(assembled.slots, assembled.alarms);
        Ok((machine, subscribers.chain(feeds).collect()))
    }

    fn start_disks(&mut self, disks: Vec<Slot>, scsi: Option<Slot>) -> Result<(), MachineError> {
        let disks = disks.into_iter().enumerate();
        let disks = disks.map(|(number, slot)| (format!("disk{number}"), slot));
        for (name, slot) in disks.chain(scsi.map(|slot| ("scsi".to_owned(), slot))) {
            let worker = Worker::start(name.clone(), slot, &self.sandbox);
            self.disks
                .push(worker.map_err(|error| MachineError::Thread(name, error))?);
        }
        Ok(())
    }

    /// Its balloon, if it has one. It ends with this boot of the machine.
    pub fn balloon(&self) -> Option<&BalloonControl> {
        self.balloon.as_ref()
    }

    /// Plugs a device in. What it needs of the caller's event loop is given back.
    ///
    /// # Errors
    /// This machine has no place for it, or the host has not what it needs.
    pub fn plug(&mut self, device: Plugged) -> Result<Option<Subscriber>, MachineError> {
        self.bays.plug(device, &self.sandbox, &self.gate, &self.meters)
    }

    fn plug_all(&mut self, devices: Vec<Plugged>) -> Result<Vec<Feed>, MachineError> {
        let mut feeds = Vec::new();
        for device in devices {
            let id = device.id.clone();
            feeds.extend(self.plug(device)?.map(|feed| (Some(id), feed)));
        }
        Ok(feeds)
    }

    /// Pulls out what was plugged in; false if nothing has this name. A request that a disk has begun is ended first.
    pub fn unplug(&mut self, id: &DeviceId) -> bool {
        self.bays.unplug(id)
    }

    /// Makes the vCPUs stand still. [`rvmm_backends::News::Paused`] tells when they do.
    pub fn pause(&self) {
        self.watchdog.iter().for_each(Leash::stand_still);
        self.gate.pause();
        self.vcpus.iter().for_each(rvmm_hypervisor::kick);
    }

    /// Lets paused vCPUs go on, and says so.
    pub fn resume(&self) {
        self.watchdog.iter().for_each(Leash::go_on);
        self.gate.resume();
    }

    /// Adds what the vCPUs' exits came to and what the disks did, under the names that `vmm/control` documents.
    pub fn add_counters(&self, sums: &mut BTreeMap<String, u64>) {
        self.counters.iter().for_each(|counters| counters.add_to(sums));
        self.meters.add_to(sums);
    }

    /// Ends the guest at once and waits until its threads are gone. A request that a disk has begun is ended first; none
    /// touches the guest's memory afterwards.
    pub fn stop(self) {
        self.gate.end();
        self.hub.set_input(None);
        for vcpu in self.vcpus {
            rvmm_hypervisor::kick(&vcpu);
            // A vCPU's thread does not panic; if it did, its panic has been reported, and the machine is over anyway.
            vcpu.join().ok();
        }
        self.disks.into_iter().for_each(Worker::stop);
        self.bays.stop();
    }
}

/// What is in the caller's event loop from the start.
fn subscribers(slots: Vec<Slot>, alarms: Vec<Alarm>) -> impl Iterator<Item = Feed> {
    let slots = slots.into_iter().map(|slot| Box::new(slot) as Subscriber);
    let alarms = alarms.into_iter().map(|alarm| Box::new(alarm) as Subscriber);
    slots.chain(alarms).map(|subscriber| (None, subscriber))
}
