//! Wires from devices to vCPUs: through the in-kernel AIA, or a PLIC of ours where the host has none.

use std::sync::{Arc, Mutex};

use rvmm_devices::bus::{Bus, BusError, Range};
use rvmm_devices::plic::{Plic, PlicSource};
use rvmm_devices::{IrqLine, LevelLine};
use rvmm_hypervisor::{Interrupts, Vm};

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
    pub fn new(vm: &Arc<dyn Vm>, interrupts: Interrupts, cpus: u8, bus: &mut Bus) -> Result<Self, BusError> {
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
