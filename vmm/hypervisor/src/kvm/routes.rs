//! KVM's routing table: what an event on an interrupt number (GSI) becomes.
//!
//! KVM takes the table as a whole, and takes the numbers of wires from it, too: so the wires stand in it first, as KVM
//! had them before anybody set a table, and messages come behind.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::{Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;

use crate::{HypervisorError, MAX_MESSAGES, Message};

/// The table of one VM.
pub(super) struct Routes {
    /// Wires are numbered from 1 to this, and 0 is there.
    wires: u32,
    messages: Mutex<BTreeMap<u32, Message>>,
}

// === impl Routes ===

impl Routes {
    pub(super) fn new(wires: u32) -> Self {
        Self {
            wires,
            messages: Mutex::default(),
        }
    }

    /// KVM's number for a message.
    pub(super) fn gsi(&self, message: u32) -> Result<u32, HypervisorError> {
        if message < MAX_MESSAGES {
            Ok(self.wires + 1 + message)
        } else {
            Err(HypervisorError::kernel(
                "a VM has not so many messages",
                ErrorKind::InvalidInput,
            ))
        }
    }

    /// Changes one message and gives KVM the table.
    pub(super) fn set(
        &self,
        vm: &VmFd,
        number: u32,
        message: Option<Message>,
    ) -> Result<(), HypervisorError> {
        let gsi = self.gsi(number)?;
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        match message {
            Some(message) => messages.insert(gsi, message),
            None => messages.remove(&gsi),
        };
        let wires = (0..=self.wires).map(wire);
        let entries: Vec<_> = wires
            .chain(messages.iter().map(|(&gsi, message)| entry(gsi, message)))
            .collect();
        let table = KvmIrqRouting::from_entries(&entries).map_err(|_| {
            HypervisorError::kernel("the table of interrupts is too long", ErrorKind::InvalidInput)
        })?;
        // With the lock held: an older table must not come after a newer one.
        vm.set_gsi_routing(&table)
            .map_err(|errno| HypervisorError::kernel("KVM refuses a message's route", errno))
    }
}

fn wire(pin: u32) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi: pin,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            irqchip: kvm_irq_routing_irqchip { irqchip: 0, pin },
        },
        ..Default::default()
    }
}

fn entry(gsi: u32, message: &Message) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            msi: kvm_irq_routing_msi {
                address_lo: (message.address & 0xffff_ffff) as u32,
                address_hi: (message.address >> 32) as u32,
                data: message.data,
                ..Default::default()
            },
        },
        ..Default::default()
    }
}
