//! How a device's registers are reached: in a window of virtio-mmio, or in the structures of a PCI function.
//!
//! A driver names registers as virtio-mmio does; over PCI each of them is a field of the same meaning, of its own width,
//! at its own place.

use core::sync::atomic::{AtomicBool, Ordering};

use super::Virtio;
use super::bare::{load8, load16, load32, store8, store16, store32};
use super::pci;

/// The lowest virtio-mmio window.
pub const WINDOWS: u64 = 0x1000_1000;
/// Bytes of a window.
pub const WINDOW: u64 = 0x1000;
/// How many there are.
pub const COUNT: u64 = 8;

/// Registers of virtio-mmio (4.2.2).
pub mod register {
    /// "virt".
    pub const MAGIC: u64 = 0x00;
    /// 2.
    pub const VERSION: u64 = 0x04;
    /// Which device it is.
    pub const DEVICE: u64 = 0x08;
    /// Who made it.
    pub const VENDOR: u64 = 0x0c;
    /// What is offered.
    pub const OFFERED: u64 = 0x10;
    /// Which half of it.
    pub const OFFERED_SEL: u64 = 0x14;
    /// What is accepted.
    pub const ACCEPTED: u64 = 0x20;
    /// Which half of it.
    pub const ACCEPTED_SEL: u64 = 0x24;
    /// Which queue.
    pub const QUEUE_SEL: u64 = 0x30;
    /// Its largest size.
    pub const QUEUE_MAX: u64 = 0x34;
    /// Its size.
    pub const QUEUE_NUM: u64 = 0x38;
    /// Whether it is live.
    pub const QUEUE_READY: u64 = 0x44;
    /// The kick.
    pub const NOTIFY: u64 = 0x50;
    /// Why an interrupt came.
    pub const INTERRUPTS: u64 = 0x60;
    /// It has been seen.
    pub const ACKNOWLEDGE: u64 = 0x64;
    /// The status.
    pub const STATUS: u64 = 0x70;
    /// The table's address.
    pub const DESCRIPTORS: u64 = 0x80;
    /// The available ring's.
    pub const AVAILABLE: u64 = 0x90;
    /// The used ring's.
    pub const USED: u64 = 0xa0;
    /// Shared memory: which region.
    pub const SHARED_SEL: u64 = 0xac;
    /// Its length.
    pub const SHARED_LEN: u64 = 0xb0;
    /// Resets one queue, where that is offered.
    pub const QUEUE_RESET: u64 = 0xc0;
    /// Counts changes of config space.
    pub const GENERATION: u64 = 0xfc;
    /// Config space.
    pub const CONFIG: u64 = 0x100;
}

/// Where the structures of a function are in its BAR; both backends have them at the same places.
pub mod structure {
    /// Features, status, queues.
    pub const COMMON: u64 = 0;
    /// Why an interrupt came.
    pub const ISR: u64 = 0x1000;
    /// Config space.
    pub const DEVICE: u64 = 0x2000;
    /// Where queues are kicked, four bytes each.
    pub const NOTIFY: u64 = 0x3000;
}

/// The last queue whose kick is in the structure for kicks.
const LAST_NOTIFY: u64 = 0x3ff;

static ON_PCI: AtomicBool = AtomicBool::new(false);

/// Whether the machine has PCI in place of virtio-mmio.
pub fn on_pci() -> bool {
    ON_PCI.load(Ordering::Relaxed)
}

/// Looks which of the two the machine has.
pub(super) fn look() {
    ON_PCI.store(pci::has_devices(), Ordering::Relaxed);
}

/// Place and width of a register's field among the structures (4.1.4.3).
fn field(name: u64) -> Option<(u64, u32)> {
    Some(match name {
        register::OFFERED_SEL => (0, 4),
        register::OFFERED => (4, 4),
        register::ACCEPTED_SEL => (8, 4),
        register::ACCEPTED => (12, 4),
        register::STATUS => (20, 1),
        register::GENERATION => (21, 1),
        register::QUEUE_SEL => (22, 2),
        register::QUEUE_MAX | register::QUEUE_NUM => (24, 2),
        register::QUEUE_READY => (28, 2),
        register::DESCRIPTORS..=0x84 => (32 + name - register::DESCRIPTORS, 4),
        register::AVAILABLE..=0x94 => (40 + name - register::AVAILABLE, 4),
        register::USED..=0xa4 => (48 + name - register::USED, 4),
        register::INTERRUPTS => (structure::ISR, 1),
        _ => return None,
    })
}

// === impl Virtio: registers ===

impl Virtio {
    /// The device of this kind for which `wanted` says that it is the right one.
    pub(super) fn find(kind: u64, wanted: fn(Self) -> bool) -> Option<Self> {
        let is_it = |device: Self| {
            if on_pci() {
                pci::Function::in_slot(device.slot()).is_virtio(kind)
            } else {
                device.read(register::MAGIC) == 0x7472_6976 && device.read(register::DEVICE) == kind
            }
        };
        let find = |slots: &mut dyn Iterator<Item = u64>| {
            slots
                .map(Self::at)
                .find(|device| is_it(*device) && wanted(*device))
        };
        if on_pci() {
            find(&mut (1..pci::SLOTS))
        } else {
            find(&mut (0..COUNT).rev())
        }
    }

    /// Reads a register.
    pub fn read(self, register: u64) -> u64 {
        if !on_pci() {
            return load32(self.base + register);
        }
        match field(register) {
            Some((at, 1)) => load8(self.base + at),
            Some((at, 2)) => load16(self.base + at),
            Some((at, _)) => load32(self.base + at),
            None => 0,
        }
    }

    /// Writes a register.
    pub fn write(self, register: u64, value: u64) -> Self {
        if !on_pci() {
            store32(self.base + register, value);
            return self;
        }
        match field(register) {
            Some((at, 1)) => store8(self.base + at, value),
            Some((at, 2)) => store16(self.base + at, value),
            Some((at, _)) => store32(self.base + at, value),
            None if register == register::NOTIFY => {
                store16(self.bell(value.min(LAST_NOTIFY)), value);
            }
            None => {}
        }
        self
    }

    /// Where a queue is kicked over PCI.
    pub fn bell(self, queue: u64) -> u64 {
        self.base + structure::NOTIFY + 4 * queue
    }

    /// Where config space is.
    pub fn config(self) -> u64 {
        if on_pci() {
            self.base + structure::DEVICE
        } else {
            self.base + register::CONFIG
        }
    }

    /// Reads a byte of config space.
    pub fn config8(self, offset: u64) -> u64 {
        load8(self.config() + offset)
    }
}
