//! The device tree: what the machine is, in the words of the kernel's bindings.
//!
//! Everything about CPUs comes from [`Facts`], that is from the host; everything about addresses from
//! [`crate::layout`]. Wired interrupts are edge-rising, since they are pulsed.

mod pci;

use rvmm_hypervisor::{Facts, Interrupts, isa};
use vm_fdt::{Error, FdtWriter};

use crate::layout::{
    APLIC, FLASH, IMSIC, PLIC, RAM_BASE, RTC, RTC_IRQ, SOURCES, SYSCON, UART, UART_IRQ, Window, virtio_slot,
};
use rvmm_boot::{First, Loaded};

/// Clock of a 16550 as QEMU's: the guest computes divisors from it, and nobody counts bauds.
const UART_CLOCK: u32 = 3_686_400;

/// -2 as U-Boot reads it: boot at once, and look for no key.
const NO_DELAY: u32 = 0xffff_fffe;

const EDGE_RISING: u32 = 1;
const SUPERVISOR_EXTERNAL: u32 = 9;

const CONTROLLER: u32 = 1;
const MSI: u32 = 2;
const SYSCON_HANDLE: u32 = 3;
const FIRST_CPU: u32 = 16;

/// What the tree is made from.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    /// The CPUs.
    pub facts: &'a Facts,
    /// How many of them.
    pub cpus: u8,
    /// RAM in bytes.
    pub memory: u64,
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// Where kernel and initrd are.
    pub loaded: &'a Loaded,
    /// Where the virtio devices are.
    pub virtio: Virtio,
    /// Whether there is a watchdog, and so a PCI bus in any case.
    pub watchdog: bool,
    /// Randomness for the guest's first moments.
    pub seed: &'a [u8; 64],
}

/// How the guest finds its virtio devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Virtio {
    /// By so many nodes of virtio-mmio.
    Mmio(u32),
    /// By looking at the PCI bus.
    Pci,
}

/// Writes the tree as a flattened blob.
///
/// # Errors
/// vm-fdt's: a string with a NUL, or too much.
pub fn build(tree: &Tree<'_>) -> Result<Vec<u8>, Error> {
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_string("compatible", "riscv-virtio")?;
    fdt.property_string("model", "rvm,virt")?;
    write_chosen(&mut fdt, tree)?;
    let memory = fdt.begin_node(&format!("memory@{RAM_BASE:x}"))?;
    fdt.property_string("device_type", "memory")?;
    fdt.property_array_u64("reg", &[RAM_BASE, tree.memory])?;
    fdt.end_node(memory)?;
    write_cpus(&mut fdt, tree)?;
    let soc = fdt.begin_node("soc")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_string("compatible", "simple-bus")?;
    fdt.property_null("ranges")?;
    fdt.property_u32("interrupt-parent", CONTROLLER)?;
    match tree.facts.interrupts {
        Interrupts::Aia { ids, .. } => write_aia(&mut fdt, tree.cpus, ids)?,
        Interrupts::Plic => write_plic(&mut fdt, tree.cpus)?,
    }
    write_devices(&mut fdt, tree)?;
    fdt.end_node(soc)?;
    write_power(&mut fdt)?;
    if let First::Firmware(_) = tree.loaded.first {
        // U-Boot would wait two seconds for a key.
        let config = fdt.begin_node("config")?;
        fdt.property_u32("bootdelay", NO_DELAY)?;
        fdt.end_node(config)?;
    }
    fdt.end_node(root)?;
    fdt.finish()
}

fn write_chosen(fdt: &mut FdtWriter, tree: &Tree<'_>) -> Result<(), Error> {
    let chosen = fdt.begin_node("chosen")?;
    fdt.property_string("bootargs", tree.cmdline)?;
    fdt.property_string("stdout-path", &format!("/soc/serial@{:x}", UART.base))?;
    fdt.property("rng-seed", tree.seed)?;
    if let Some((start, end)) = tree.loaded.initrd {
        fdt.property_u64("linux,initrd-start", start)?;
        fdt.property_u64("linux,initrd-end", end)?;
    }
    fdt.end_node(chosen)
}

fn write_cpus(fdt: &mut FdtWriter, tree: &Tree<'_>) -> Result<(), Error> {
    let facts = tree.facts;
    let cpus = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 1)?;
    fdt.property_u32("#size-cells", 0)?;
    fdt.property_u32("timebase-frequency", facts.timebase_hz)?;
    for number in 0..u32::from(tree.cpus) {
        let cpu = fdt.begin_node(&format!("cpu@{number}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_u32("reg", number)?;
        fdt.property_string("status", "okay")?;
        fdt.property_string("compatible", "riscv")?;
        fdt.property_string("riscv,isa", &isa::isa_string(&facts.isa))?;
        fdt.property_string("riscv,isa-base", "rv64i")?;
        fdt.property_string_list(
            "riscv,isa-extensions",
            facts.isa.iter().map(|&name| name.to_owned()).collect(),
        )?;
        if let Some(mmu) = facts.mmu {
            fdt.property_string("mmu-type", mmu.device_tree_name())?;
        }
        let blocks = [
            ("riscv,cbom-block-size", facts.cbom_block),
            ("riscv,cboz-block-size", facts.cboz_block),
            ("riscv,cbop-block-size", facts.cbop_block),
        ];
        for (name, size) in blocks {
            if let Some(size) = size {
                fdt.property_u32(name, size)?;
            }
        }
        let intc = fdt.begin_node("interrupt-controller")?;
        fdt.property_u32("#address-cells", 0)?;
        fdt.property_u32("#interrupt-cells", 1)?;
        fdt.property_null("interrupt-controller")?;
        fdt.property_string("compatible", "riscv,cpu-intc")?;
        fdt.property_phandle(FIRST_CPU + number)?;
        fdt.end_node(intc)?;
        fdt.end_node(cpu)?;
    }
    fdt.end_node(cpus)
}

fn externals(cpus: u8) -> Vec<u32> {
    (0..u32::from(cpus))
        .flat_map(|number| [FIRST_CPU + number, SUPERVISOR_EXTERNAL])
        .collect()
}

fn write_aia(fdt: &mut FdtWriter, cpus: u8, ids: u32) -> Result<(), Error> {
    let imsics = fdt.begin_node(&format!("imsics@{:x}", IMSIC.base))?;
    fdt.property_string("compatible", "riscv,imsics")?;
    write_reg(fdt, IMSIC.times(cpus.into()))?;
    fdt.property_array_u32("interrupts-extended", &externals(cpus))?;
    fdt.property_null("interrupt-controller")?;
    fdt.property_u32("#address-cells", 0)?;
    fdt.property_u32("#interrupt-cells", 0)?;
    fdt.property_null("msi-controller")?;
    fdt.property_u32("#msi-cells", 0)?;
    fdt.property_u32("riscv,num-ids", ids)?;
    fdt.property_phandle(MSI)?;
    fdt.end_node(imsics)?;
    let aplic = fdt.begin_node(&format!("interrupt-controller@{:x}", APLIC.base))?;
    fdt.property_string("compatible", "riscv,aplic")?;
    write_reg(fdt, APLIC)?;
    fdt.property_u32("msi-parent", MSI)?;
    fdt.property_null("interrupt-controller")?;
    fdt.property_u32("#interrupt-cells", 2)?;
    fdt.property_u32("#address-cells", 0)?;
    fdt.property_u32("riscv,num-sources", SOURCES.min(ids))?;
    fdt.property_phandle(CONTROLLER)?;
    fdt.end_node(aplic)
}

fn write_plic(fdt: &mut FdtWriter, cpus: u8) -> Result<(), Error> {
    let plic = fdt.begin_node(&format!("interrupt-controller@{:x}", PLIC.base))?;
    fdt.property_string_list(
        "compatible",
        vec!["sifive,plic-1.0.0".to_owned(), "riscv,plic0".to_owned()],
    )?;
    write_reg(fdt, PLIC)?;
    fdt.property_array_u32("interrupts-extended", &externals(cpus))?;
    fdt.property_null("interrupt-controller")?;
    fdt.property_u32("#interrupt-cells", 1)?;
    fdt.property_u32("#address-cells", 0)?;
    fdt.property_u32("riscv,ndev", SOURCES)?;
    fdt.property_phandle(CONTROLLER)?;
    fdt.end_node(plic)
}

fn write_devices(fdt: &mut FdtWriter, tree: &Tree<'_>) -> Result<(), Error> {
    let serial = fdt.begin_node(&format!("serial@{:x}", UART.base))?;
    fdt.property_string("compatible", "ns16550a")?;
    write_reg(fdt, UART)?;
    fdt.property_u32("clock-frequency", UART_CLOCK)?;
    write_interrupt(fdt, tree.facts, UART_IRQ)?;
    fdt.end_node(serial)?;
    if let Virtio::Mmio(count) = tree.virtio {
        write_virtio_mmio(fdt, tree.facts, count)?;
    }
    if tree.virtio == Virtio::Pci || tree.watchdog {
        pci::write(fdt, tree)?;
    }
    if let First::Flash = tree.loaded.first {
        // The bank of the variables alone: the other one takes no commands.
        let bank = FLASH.nth(1);
        let flash = fdt.begin_node(&format!("flash@{:x}", bank.base))?;
        fdt.property_string("compatible", "cfi-flash")?;
        write_reg(fdt, bank)?;
        fdt.property_u32("bank-width", 4)?;
        fdt.end_node(flash)?;
    }
    let rtc = fdt.begin_node(&format!("rtc@{:x}", RTC.base))?;
    fdt.property_string("compatible", "google,goldfish-rtc")?;
    write_reg(fdt, RTC)?;
    write_interrupt(fdt, tree.facts, RTC_IRQ)?;
    fdt.end_node(rtc)?;
    let syscon = fdt.begin_node(&format!("test@{:x}", SYSCON.base))?;
    fdt.property_string_list(
        "compatible",
        ["sifive,test1", "sifive,test0", "syscon"]
            .map(str::to_owned)
            .to_vec(),
    )?;
    write_reg(fdt, SYSCON)?;
    fdt.property_phandle(SYSCON_HANDLE)?;
    fdt.end_node(syscon)
}

fn write_virtio_mmio(fdt: &mut FdtWriter, facts: &Facts, count: u32) -> Result<(), Error> {
    for index in 0..count {
        let (window, source) = virtio_slot(index);
        let node = fdt.begin_node(&format!("virtio_mmio@{:x}", window.base))?;
        fdt.property_string("compatible", "virtio,mmio")?;
        write_reg(fdt, window)?;
        fdt.property_null("dma-coherent")?;
        write_interrupt(fdt, facts, source)?;
        fdt.end_node(node)?;
    }
    Ok(())
}

fn write_power(fdt: &mut FdtWriter) -> Result<(), Error> {
    for (name, value) in [("poweroff", 0x5555), ("reboot", 0x7777)] {
        let node = fdt.begin_node(name)?;
        fdt.property_string("compatible", &format!("syscon-{name}"))?;
        fdt.property_u32("regmap", SYSCON_HANDLE)?;
        fdt.property_u32("offset", 0)?;
        fdt.property_u32("value", value)?;
        fdt.end_node(node)?;
    }
    Ok(())
}

fn write_reg(fdt: &mut FdtWriter, window: Window) -> Result<(), Error> {
    fdt.property_array_u64("reg", &[window.base, window.len])
}

fn write_interrupt(fdt: &mut FdtWriter, facts: &Facts, source: u32) -> Result<(), Error> {
    match facts.interrupts {
        Interrupts::Aia { .. } => fdt.property_array_u32("interrupts", &[source, EDGE_RISING]),
        Interrupts::Plic => fdt.property_u32("interrupts", source),
    }
}
