//! Wires and messages from devices to vCPUs: through the in-kernel AIA, or a PLIC of ours where the host has none.
//!
//! A message is an eventfd that KVM turns into a write to an IMSIC (irqfd); a wire never is one, since nothing would
//! lower it.
//!
//! Each message and each wire takes one identity of an IMSIC. Where not all of those arrive ([`Interrupts::Aia`]), there is
//! [`Room`] for as many messages as are sure to: devices that come later have a wire, which up to a quarter of them share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rvmm_devices::bus::{Bus, BusError, Range};
use rvmm_devices::pci::{Message, MessageLine};
use rvmm_devices::plic::{Plic, PlicSource};
use rvmm_devices::{IrqLine, LevelLine};
use rvmm_hypervisor::{HypervisorError, Interrupts, Vm};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::layout::{PCI_PINS, PLIC, SOURCES};

/// Identities that are no message's: of interrupts between vCPUs, the UART, the clock and the pins of the PCI bus; and some that a
/// guest takes for a moment while it moves an interrupt to another vCPU.
const NO_MESSAGES: u32 = 1 + 2 + PCI_PINS + 4;

/// Gives devices their lines.
pub enum Wiring {
    /// KVM's APLIC.
    Aplic(Arc<dyn Vm>, Room),
    /// Ours.
    Plic(Arc<Mutex<Plic>>),
}

struct AplicSource {
    vm: Arc<dyn Vm>,
    source: u32,
}

/// How many more messages are sure to arrive.
#[derive(Clone)]
pub struct Room(Arc<AtomicU32>);

/// The place of one message, which is free again when this is dropped.
struct Place(Room);

/// One MSI-X vector.
struct MessageEvent {
    vm: Arc<dyn Vm>,
    number: u32,
    event: EventFd,
    _place: Place,
}

struct ExternalInterrupt {
    vm: Arc<dyn Vm>,
    vcpu: usize,
}

// === impl Wiring ===

impl Wiring {
    /// Puts the interrupt controller in place that this host needs.
    ///
    /// # Errors
    /// Never, with the machine's own map.
    pub fn new(vm: &Arc<dyn Vm>, interrupts: Interrupts, cpus: u8, bus: &Bus) -> Result<Self, BusError> {
        if let Interrupts::Aia { ids, sound } = interrupts {
            return Ok(Self::Aplic(Arc::clone(vm), Room::new(ids, sound)));
        }
        let line = |vcpu| -> Arc<dyn LevelLine> {
            Arc::new(ExternalInterrupt {
                vm: Arc::clone(vm),
                vcpu,
            })
        };
        let plic = Arc::new(Mutex::new(Plic::new(
            SOURCES,
            (0..usize::from(cpus)).map(line).collect(),
        )));
        bus.insert(
            Range {
                base: PLIC.base,
                len: PLIC.len,
            },
            Arc::<Mutex<Plic>>::clone(&plic),
        )?;
        Ok(Self::Plic(plic))
    }

    /// The line of a wired source.
    pub fn line(&self, source: u32) -> Arc<dyn IrqLine> {
        match self {
            Self::Aplic(vm, _) => Arc::new(AplicSource {
                vm: Arc::clone(vm),
                source,
            }),
            Self::Plic(plic) => Arc::new(PlicSource::new(Arc::clone(plic), source)),
        }
    }
}

impl Wiring {
    /// The line of a source that has a level instead of edges.
    pub fn level(&self, source: u32) -> Arc<dyn LevelLine> {
        match self {
            Self::Aplic(vm, _) => Arc::new(AplicSource {
                vm: Arc::clone(vm),
                source,
            }),
            Self::Plic(plic) => Arc::new(PlicSource::new(Arc::clone(plic), source)),
        }
    }

    /// The lines of this many message-signalled interrupts, numbered from `first`; none where only wires exist, or where so many more would
    /// not be sure to arrive.
    ///
    /// # Errors
    /// When the kernel has no more descriptors or KVM refuses.
    pub fn messages(&self, first: u32, count: u32) -> Result<Vec<Box<dyn MessageLine>>, HypervisorError> {
        let Self::Aplic(vm, room) = self else {
            return Ok(Vec::new());
        };
        let places = room.take(count);
        let line = |(number, place)| -> Result<Box<dyn MessageLine>, HypervisorError> {
            let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
                .map_err(|error| HypervisorError::kernel("no descriptor for an interrupt", error))?;
            vm.attach_message(number, &event)?;
            Ok(Box::new(MessageEvent {
                vm: Arc::clone(vm),
                number,
                event,
                _place: place,
            }))
        };
        (first..).zip(places).map(line).collect()
    }
}

// === impl Room ===

impl Room {
    /// Of IMSICs with this many identities, of which those up to `sound` arrive.
    fn new(ids: u32, sound: u32) -> Self {
        let places = if sound < ids {
            sound.saturating_sub(NO_MESSAGES)
        } else {
            // A guest that runs out says so, and takes the wire.
            u32::MAX
        };
        Self(Arc::new(AtomicU32::new(places)))
    }

    /// Places for this many messages, or none.
    fn take(&self, count: u32) -> Vec<Place> {
        let fits = |left: u32| left.checked_sub(count);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok();
        let count = if taken { count } else { 0 };
        (0..count).map(|_| Place(self.clone())).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl MessageLine for MessageEvent {
    fn route(&self, message: Message) {
        let message = rvmm_hypervisor::Message {
            address: message.address,
            data: message.data,
        };
        // What KVM refuses sends nothing: the guest has put nonsense into its table.
        self.vm.route_message(self.number, message).ok();
    }

    fn trigger(&self) {
        // Full only when KVM has not come to look since 2^64 events.
        self.event.write(1).ok();
    }
}

impl Drop for MessageEvent {
    fn drop(&mut self) {
        self.vm.detach_message(self.number, &self.event);
    }
}

impl LevelLine for AplicSource {
    fn set(&self, high: bool) {
        self.vm.set_level(self.source, high);
    }
}

impl IrqLine for AplicSource {
    fn trigger(&self) {
        self.vm.pulse(self.source);
    }
}

impl LevelLine for ExternalInterrupt {
    fn set(&self, high: bool) {
        self.vm.set_external(self.vcpu, high);
    }
}
