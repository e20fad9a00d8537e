//! The memory map, drawn, then as constants. It is that of QEMU's `virt`, so that both backends, U-Boot and EDK2 see
//! one machine.
//!
//! ```text
//!  0x0010_0000  syscon: power-off and reset      0x1000_0000  UART, source 10
//!  0x0010_1000  goldfish RTC, source 11          0x1000_1000  virtio-mmio, 8 slots of 4 KiB, sources 1 to 8
//!  0x0c00_0000  PLIC (hosts without AIA)         0x2800_0000  IMSIC, 4 KiB a vCPU
//!  0x0d00_0000  APLIC                            0x8000_0000  RAM
//!  0x2000_0000  flash: firmware, then its variables, 32 MiB each
//!  0x3000_0000  PCI: ECAM of one bus             0x8020_0000  kernel … initrd, device tree at the top of RAM
//!  0x4000_0000  PCI: 1 GiB for BARs              above RAM, at a multiple of 16 GiB: 16 GiB for 64-bit BARs
//! ```
//!
//! PCI is there in place of virtio-mmio (`--transport pci`). Its functions share the wired sources 32 to 35: the pin
//! INTA of slot n is source 32 + n mod 4.

pub use rvmm_boot::RAM_BASE;

/// The syscon that switches the machine off or resets it.
pub const SYSCON: Window = Window {
    base: 0x10_0000,
    len: 0x1000,
};
/// The goldfish RTC.
pub const RTC: Window = Window {
    base: 0x10_1000,
    len: 0x1000,
};
/// The PLIC, where the host has no AIA.
pub const PLIC: Window = Window {
    base: 0x0c00_0000,
    len: 0x60_0000,
};
/// The supervisor-level APLIC; KVM's has this size.
pub const APLIC: Window = Window {
    base: 0x0d00_0000,
    len: 0x4000,
};
/// The 16550 UART.
pub const UART: Window = Window {
    base: 0x1000_0000,
    len: 0x100,
};
/// How many virtio-mmio slots there are.
pub const VIRTIO_SLOTS: u32 = 8;
/// The lowest virtio-mmio slot.
pub const VIRTIO: Window = Window {
    base: 0x1000_1000,
    len: 0x1000,
};
/// The first bank of flash: firmware. The second one, its variables, follows.
pub const FLASH: Window = Window {
    base: 0x2000_0000,
    len: rvmm_boot::firmware::FLASH_BANK,
};
/// The first vCPU's IMSIC.
pub const IMSIC: Window = Window {
    base: 0x2800_0000,
    len: 0x1000,
};

/// Configuration space of the PCI bus.
pub const PCI_ECAM: Window = Window {
    base: 0x3000_0000,
    len: rvmm_devices::pci::host::ECAM,
};
/// Where BARs of 32 bits go.
pub const PCI_LOW: Window = Window {
    base: 0x4000_0000,
    len: 0x4000_0000,
};
/// Length of the window for BARs of 64 bits, and what it is aligned to.
const PCI_HIGH_LEN: u64 = 16 << 30;
/// The first of the wired sources that PCI functions share.
const PCI_IRQ: u32 = 32;
/// How many there are: one for each pin of a slot, then the next slot's pins begin one further.
pub const PCI_PINS: u32 = 4;

/// Wired source of the lowest virtio-mmio slot.
const VIRTIO_IRQ: u32 = 1;
/// Wired source of the UART.
pub const UART_IRQ: u32 = 10;
/// Wired source of the RTC.
pub const RTC_IRQ: u32 = 11;
/// Wired sources of the interrupt controller: as many as the smallest AIA has identities.
pub const SOURCES: u32 = 63;

/// A device's place in the address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub len: u64,
}

/// Window and wired source of a virtio device, by its place in the guest's order. The first one has the highest slot:
/// QEMU lists its slots from the highest down, and a guest names its disks in the order of that list.
pub const fn virtio_slot(index: u32) -> (Window, u32) {
    let slot = VIRTIO_SLOTS.saturating_sub(1).saturating_sub(index);
    (VIRTIO.nth(slot as u64), VIRTIO_IRQ + slot)
}

/// Where BARs of 64 bits go: above RAM, of which there is so much.
pub const fn pci_high(memory: u64) -> Window {
    Window {
        base: (RAM_BASE + memory).next_multiple_of(PCI_HIGH_LEN),
        len: PCI_HIGH_LEN,
    }
}

/// The wired source of a slot's pin; INTA is pin 0.
pub const fn pci_source(slot: u32, pin: u32) -> u32 {
    PCI_IRQ + (slot + pin) % PCI_PINS
}

// === impl Window ===

impl From<Window> for rvmm_devices::bus::Range {
    fn from(window: Window) -> Self {
        Self {
            base: window.base,
            len: window.len,
        }
    }
}

impl Window {
    /// The `index`th window of this size, counted from this one.
    pub const fn nth(self, index: u64) -> Self {
        Self {
            base: self.base + index * self.len,
            len: self.len,
        }
    }

    /// This many windows as one.
    pub const fn times(self, count: u64) -> Self {
        Self {
            base: self.base,
            len: self.len * count,
        }
    }
}
