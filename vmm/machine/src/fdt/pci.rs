//! The node of the PCI host bridge (the kernel's binding `host-generic-pci`).
//!
//! Addresses of functions have three cells here: the first has the space in its upper byte (2: memory of 32 bits,
//! 3: of 64 bits), or slot and function in bits 8 to 15; the others are the address.

use rvmm_hypervisor::Interrupts;
use vm_fdt::{Error, FdtWriter};

use super::{CONTROLLER, MSI, Tree, write_reg};
use crate::layout::{PCI_ECAM, PCI_LOW, PCI_PINS, Window, pci_high, pci_source};

const MEMORY_32: u32 = 0x0200_0000;
const MEMORY_64: u32 = 0x0300_0000;
/// A slot's place in the first cell.
const SLOT_SHIFT: u32 = 11;
/// Slots and pins repeat every four: what of a function's address and pin matters for its interrupt.
const INTERRUPT_MASK: [u32; 4] = [(PCI_PINS - 1) << SLOT_SHIFT, 0, 0, 7];
const LEVEL_HIGH: u32 = 4;

/// Writes the node.
pub fn write(fdt: &mut FdtWriter, tree: &Tree<'_>) -> Result<(), Error> {
    let node = fdt.begin_node(&format!("pci@{:x}", PCI_ECAM.base))?;
    fdt.property_string("compatible", "pci-host-ecam-generic")?;
    fdt.property_string("device_type", "pci")?;
    fdt.property_u32("#address-cells", 3)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_u32("#interrupt-cells", 1)?;
    write_reg(fdt, PCI_ECAM)?;
    fdt.property_array_u32("bus-range", &[0, 0])?;
    fdt.property_u32("linux,pci-domain", 0)?;
    fdt.property_null("dma-coherent")?;
    let ranges = [range(MEMORY_32, PCI_LOW), range(MEMORY_64, pci_high(tree.memory))];
    fdt.property_array_u32("ranges", ranges.as_flattened())?;
    if let Interrupts::Aia { .. } = tree.facts.interrupts {
        fdt.property_u32("msi-parent", MSI)?;
    }
    fdt.property_array_u32("interrupt-map-mask", &INTERRUPT_MASK)?;
    fdt.property_array_u32("interrupt-map", &interrupt_map(tree.facts.interrupts))?;
    fdt.end_node(node)
}

/// A window that has the same addresses on both sides of the bridge.
fn range(space: u32, window: Window) -> [u32; 7] {
    let [base, len] = [window.base, window.len].map(halves);
    [space, base[0], base[1], base[0], base[1], len[0], len[1]]
}

fn halves(value: u64) -> [u32; 2] {
    [(value >> 32) as u32, (value & 0xffff_ffff) as u32]
}

/// For each slot and pin that differ: address, pin, controller, source and how it is triggered.
fn interrupt_map(interrupts: Interrupts) -> Vec<u32> {
    let trigger = match interrupts {
        Interrupts::Aia { .. } => Some(LEVEL_HIGH),
        Interrupts::Plic => None,
    };
    let entry = |slot: u32, pin: u32| {
        let address = [slot << SLOT_SHIFT, 0, 0, pin + 1];
        let parent = [CONTROLLER, pci_source(slot, pin)];
        address.into_iter().chain(parent).chain(trigger)
    };
    (0..PCI_PINS)
        .flat_map(|slot| (0..PCI_PINS).flat_map(move |pin| entry(slot, pin)))
        .collect()
}
