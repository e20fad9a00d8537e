//! What the CPUs of a VM are, as the host offers them: the source of the device tree's `cpus` node.

/// What a guest's CPUs are. All of them are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Ticks of the `time` CSR in a second.
    pub timebase_hz: u32,
    /// ISA extensions in canonical order (see [`crate::isa`]), lower case: `i`, `m`, …, `zba`.
    pub isa: Vec<&'static str>,
    /// The largest page-table mode; `None` if the guest has only bare addresses.
    pub mmu: Option<Mmu>,
    /// Block size in bytes of `cbo.clean` and its kin, where Zicbom is there.
    pub cbom_block: Option<u32>,
    /// Block size in bytes of `cbo.zero`, where Zicboz is there.
    pub cboz_block: Option<u32>,
    /// Block size in bytes of prefetches, where Zicbop is there.
    pub cbop_block: Option<u32>,
    /// Who delivers device interrupts.
    pub interrupts: Interrupts,
}

/// What a host does with an ISA extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It has none.
    Absent,
    /// Every guest has it.
    Always,
    /// A guest has it unless it is switched off.
    On,
    /// A guest has it only when it is switched on.
    Off,
}

/// A page-table mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mmu {
    /// Three levels.
    Sv39,
    /// Four levels.
    Sv48,
    /// Five levels.
    Sv57,
}

/// Who delivers device interrupts to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupts {
    /// The in-kernel AIA: APLIC for wires, one IMSIC a vCPU.
    Aia {
        /// Interrupt identities of each IMSIC.
        ids: u32,
        /// The highest of them that is sure to arrive: below `ids` where KVM's IMSIC is at fault.
        sound: u32,
    },
    /// None in the kernel: a PLIC in user space drives the vCPUs' external interrupt.
    Plic,
}

// === impl Offer ===

impl Offer {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Absent => "not on this host",
            Self::Always => "always on",
            Self::On => "on, may be switched off",
            Self::Off => "off, may be switched on",
        }
    }
}

// === impl Mmu ===

impl Mmu {
    /// From the mode field of `satp` (privileged specification, 12.1.11).
    pub fn from_satp_mode(mode: u64) -> Option<Self> {
        match mode {
            8 => Some(Self::Sv39),
            9 => Some(Self::Sv48),
            10 => Some(Self::Sv57),
            _ => None,
        }
    }

    /// The device tree's `mmu-type`.
    pub fn device_tree_name(self) -> &'static str {
        match self {
            Self::Sv39 => "riscv,sv39",
            Self::Sv48 => "riscv,sv48",
            Self::Sv57 => "riscv,sv57",
        }
    }
}
