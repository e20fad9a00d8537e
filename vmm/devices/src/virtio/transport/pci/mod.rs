//! virtio over PCI (4.1), version 1 only: a function whose BARs hold the structures that its capabilities name.
//!
//! ```text
//!   BAR 0, 16 KiB   0x0000 common: negotiation, queues     negotiation.rs
//!                   0x1000 ISR: read to clear              interrupt.rs
//!                   0x2000 config space of the device
//!                   0x3000 notify: four bytes a queue; normally KVM turns a write into an eventfd's event
//!   BAR 2,  4 KiB   MSI-X table and pending bits           pci::msix, where the host has MSIs
//! ```
//!
//! Each structure is a device of its own on the bus, and locks the shared [`Core`] only where it concerns it: the ISR
//! and the MSI-X table answer while the device is at work.

mod interrupt;
mod negotiation;

use std::sync::{Arc, Mutex, PoisonError};

use vm_memory::GuestMemoryMmap;

use self::interrupt::{Isr, PciInterrupt};
use self::negotiation::Negotiation;
use super::Kick;
use super::core::Core;
use crate::BusDevice;
use crate::bus::Range;
use crate::pci::function::AccessWindow;
use crate::pci::{ConfigSpace, Function, Identity, Intx, MessageLine, Msix, Placed, Region};
use crate::virtio::VirtioDevice;

/// The BAR with the structures.
const STRUCTURES: usize = 0;
/// The BAR with the MSI-X table.
const MESSAGES: usize = 2;
const BAR_LEN: u64 = 0x4000;

const COMMON: Range = structure(0);
const ISR: Range = structure(1);
const DEVICE: Range = structure(2);
const NOTIFY: Range = structure(3);
/// Bytes between the places at which queues are notified.
const NOTIFY_STRIDE: u32 = 4;

/// PCI's number for virtio, and what is added to a device type (4.1.2).
const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;
/// Above the numbers that a driver of before version 1 looks for.
const SUBSYSTEM: u16 = 0x1100;

const CAP_VENDOR: u8 = 0x09;
const CAP_COMMON: u8 = 1;
const CAP_NOTIFY: u8 = 2;
const CAP_ISR: u8 = 3;
const CAP_DEVICE: u8 = 4;
const CAP_ACCESS: u8 = 5;
/// Bytes of a virtio capability after id and pointer: length, type, BAR, number, padding, offset, length.
const CAP_BODY: usize = 14;

/// How a function is wired to the outside.
pub struct PciWiring {
    /// Its INTx pin.
    pub intx: Arc<Intx>,
    /// A line for each MSI-X vector: best one a queue and one more. None where the host has no MSIs.
    pub messages: Vec<Box<dyn MessageLine>>,
    /// Follows the notify structure: see [`notify_address`].
    pub placed: Box<dyn Placed>,
}

/// The structure through which the device's own config space is reached.
struct DeviceConfig(Arc<Mutex<Core>>);

/// The structure at which queues are notified.
struct Notify(Arc<Mutex<Core>>);

/// A virtio device as a PCI function, and the device for the event loop.
pub fn function(
    device: Box<dyn VirtioDevice>,
    memory: GuestMemoryMmap,
    kick: Arc<Kick>,
    wiring: PciWiring,
) -> (Function, Arc<Mutex<Core>>) {
    let mut config = ConfigSpace::new(&identity(device.id()));
    config.add_bar(STRUCTURES, BAR_LEN, true);
    let window = add_capabilities(&mut config);
    let msix = (!wiring.messages.is_empty()).then(|| Arc::new(Mutex::new(Msix::new(wiring.messages))));
    let interrupt = Arc::new(PciInterrupt::new(
        device.queue_sizes().len(),
        Arc::clone(&wiring.intx),
        msix.clone(),
    ));
    let core = Core::new(device, memory, Arc::<PciInterrupt>::clone(&interrupt), kick);
    let core = Arc::new(Mutex::new(core));
    let regions = vec![
        region(
            COMMON,
            Negotiation::new(Arc::clone(&core), Arc::clone(&interrupt)),
        ),
        region(ISR, Isr(interrupt)),
        region(DEVICE, DeviceConfig(Arc::clone(&core))),
        region(NOTIFY, Notify(Arc::clone(&core))),
    ];
    let held = Arc::clone(&core);
    let function = Function::new(config, regions)
        .with_mastering(Box::new(move |on| {
            held.lock().unwrap_or_else(PoisonError::into_inner).hold(!on);
        }))
        .with_intx(wiring.intx)
        .with_window(window)
        .with_placed(STRUCTURES, wiring.placed);
    let function = match msix {
        Some(msix) => function.with_msix(MESSAGES, msix),
        None => function,
    };
    (function, core)
}

/// Where a queue is notified, given the address of the BAR that a [`Placed`] is told.
pub fn notify_address(bar: u64, queue: u32) -> u64 {
    bar + NOTIFY.base + u64::from(queue) * u64::from(NOTIFY_STRIDE)
}

const fn structure(number: u64) -> Range {
    Range {
        base: number * 0x1000,
        len: 0x1000,
    }
}

fn region(range: Range, device: impl BusDevice + 'static) -> Region {
    Region {
        bar: STRUCTURES,
        range,
        device: Arc::new(Mutex::new(device)),
    }
}

fn identity(device: u32) -> Identity {
    use virtio_bindings::virtio_ids::{VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_NET, VIRTIO_ID_VSOCK};
    let class = match device {
        VIRTIO_ID_BLOCK => 0x01_8000,
        VIRTIO_ID_NET => 0x02_0000,
        VIRTIO_ID_CONSOLE => 0x07_8000,
        VIRTIO_ID_VSOCK => 0x02_8000,
        _ => 0x00_ff00,
    };
    let device = u16::try_from(device).unwrap_or(0);
    Identity {
        id: (VENDOR, FIRST_DEVICE.saturating_add(device)),
        subsystem: (VENDOR, SUBSYSTEM),
        class,
        revision: 1,
    }
}

fn add_capabilities(config: &mut ConfigSpace) -> AccessWindow {
    for (kind, range) in [(CAP_COMMON, COMMON), (CAP_ISR, ISR), (CAP_DEVICE, DEVICE)] {
        config.add_capability(CAP_VENDOR, &body(kind, range, &[]), &[]);
    }
    let notify = body(CAP_NOTIFY, NOTIFY, &NOTIFY_STRIDE.to_le_bytes());
    config.add_capability(CAP_VENDOR, &notify, &[]);
    let nowhere = Range { base: 0, len: 0 };
    let access = body(CAP_ACCESS, nowhere, &[0; 4]);
    // BAR, offset, length and data are the driver's.
    let mut writable = [0; CAP_BODY + 4];
    writable[2] = 0xff;
    writable[6..].fill(0xff);
    let at = config.add_capability(CAP_VENDOR, &access, &writable);
    AccessWindow {
        bar: at + 4,
        offset: at + 8,
        length: at + 12,
        data: at + 16,
    }
}

/// A virtio capability behind id and pointer.
fn body(kind: u8, range: Range, extra: &[u8]) -> Vec<u8> {
    let length = u8::try_from(2 + CAP_BODY + extra.len()).unwrap_or(u8::MAX);
    let word = |value: u64| u32::try_from(value).unwrap_or(0).to_le_bytes();
    let mut body = vec![length, kind, 0, 0, 0, 0];
    body.extend(word(range.base));
    body.extend(word(range.len));
    body.extend(extra);
    body
}

impl BusDevice for DeviceConfig {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let core = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        core.device().read_config(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut core = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        core.device_mut().write_config(offset, data);
    }
}

impl BusDevice for Notify {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    /// The place says which queue; what is written says it again, and does not count.
    fn write(&mut self, offset: u64, data: &[u8]) {
        if !matches!(data.len(), 2 | 4) || !offset.is_multiple_of(u64::from(NOTIFY_STRIDE)) {
            return;
        }
        let queue = u32::try_from(offset / u64::from(NOTIFY_STRIDE)).unwrap_or(u32::MAX);
        let core = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        core.notify(queue);
    }
}

#[cfg(test)]
mod tests;
