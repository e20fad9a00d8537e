//! Wires and messages from devices to vCPUs: through the in-kernel AIA, or a PLIC of ours where the host has none.
//!
//! A message is an eventfd that KVM turns into a write to an IMSIC (irqfd); a wire never is one, since nothing would
//! lower it.

use std::sync::{Arc, Mutex};

use rvmm_devices::bus::{Bus, BusError, Range};
use rvmm_devices::pci::{Message, MessageLine};
use rvmm_devices::plic::{Plic, PlicSource};
use rvmm_devices::{IrqLine, LevelLine};
use rvmm_hypervisor::{HypervisorError, Interrupts, Vm};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::layout::{PLIC, SOURCES};

/// Gives devices their lines.
pub enum Wiring {
    /// KVM's APLIC.
    Aplic(Arc<dyn Vm>),
    /// Ours.
    Plic(Arc<Mutex<Plic>>),
}

struct AplicSource {
    vm: Arc<dyn Vm>,
    source: u32,
}

/// One MSI-X vector.
struct MessageEvent {
    vm: Arc<dyn Vm>,
    number: u32,
    event: EventFd,
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
        if let Interrupts::Aia { .. } = interrupts {
            return Ok(Self::Aplic(Arc::clone(vm)));
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
            Self::Aplic(vm) => Arc::new(AplicSource {
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
            Self::Aplic(vm) => Arc::new(AplicSource {
                vm: Arc::clone(vm),
                source,
            }),
            Self::Plic(plic) => Arc::new(PlicSource::new(Arc::clone(plic), source)),
        }
    }

    /// The lines of this many message-signalled interrupts, numbered from `first`; none where only wires exist.
    ///
    /// # Errors
    /// When the kernel has no more descriptors or KVM refuses.
    pub fn messages(&self, first: u32, count: u32) -> Result<Vec<Box<dyn MessageLine>>, HypervisorError> {
        let Self::Aplic(vm) = self else {
            return Ok(Vec::new());
        };
        let line = |number| -> Result<Box<dyn MessageLine>, HypervisorError> {
            let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
                .map_err(|error| HypervisorError::kernel("no descriptor for an interrupt", error))?;
            vm.attach_message(number, &event)?;
            Ok(Box::new(MessageEvent {
                vm: Arc::clone(vm),
                number,
                event,
            }))
        };
        (first..first.saturating_add(count)).map(line).collect()
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
