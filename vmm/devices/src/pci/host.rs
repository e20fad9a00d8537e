//! The host bridge: the configuration spaces of one bus through ECAM, and who answers where in the bridge's windows.

use std::sync::Arc;

use super::config::{ConfigSpace, Identity};
use super::function::Function;
use crate::bus::{Bus, BusDevice, Range};

/// Slots of the bus; each has one function. The first one is the bridge's own.
pub const SLOTS: usize = 32;
/// Bytes of the ECAM window: one bus.
pub const ECAM: u64 = 0x10_0000;

/// Bits of an ECAM offset below the slot's number: function and register.
const SLOT_SHIFT: u32 = 15;
const FUNCTION: u64 = 0x7000;
const REGISTER: u64 = 0xfff;

/// The generic bridge that QEMU's `virt` shows, too.
const BRIDGE: Identity = Identity {
    id: (0x1b36, 0x0008),
    subsystem: (0x1af4, 0x1100),
    class: 0x06_0000,
    revision: 0,
};

/// The bridge and what is plugged in. The ECAM window of the machine's bus.
pub struct Host {
    functions: [Option<Function>; SLOTS],
    memory: Arc<Bus>,
    windows: Vec<Range>,
    /// The BARs that are on the memory bus.
    placed: Vec<Placement>,
}

/// Why a function cannot be plugged in.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlugError {
    /// There is no such slot.
    #[error("PCI slot {0} does not exist; slots are numbered to {max}", max = SLOTS - 1)]
    NoSlot(usize),
    /// Another function is there.
    #[error("PCI slot {0} is taken")]
    Taken(usize),
}

/// Where a BAR is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placement {
    slot: usize,
    bar: usize,
    range: Range,
}

// === impl Host ===

impl Host {
    /// A bridge without other functions, that passes accesses in these windows on to `memory`.
    pub fn new(memory: Arc<Bus>, windows: Vec<Range>) -> Self {
        let mut functions = [const { None }; SLOTS];
        functions[0] = Some(Function::new(ConfigSpace::new(&BRIDGE), Vec::new()));
        Self {
            functions,
            memory,
            windows,
            placed: Vec::new(),
        }
    }

    /// Plugs a function in. A guest that runs finds it when it looks at the bus again.
    ///
    /// # Errors
    /// When the slot is not free.
    pub fn plug(&mut self, slot: usize, function: Function) -> Result<(), PlugError> {
        match self.functions.get_mut(slot) {
            None => Err(PlugError::NoSlot(slot)),
            Some(Some(_)) => Err(PlugError::Taken(slot)),
            Some(free) => {
                *free = Some(function);
                self.place();
                Ok(())
            }
        }
    }

    /// Takes a function out: from now on its registers read all-ones, its BARs and doorbells are gone, and so is its
    /// interrupt when the function is dropped. The bridge itself stays.
    pub fn unplug(&mut self, slot: usize) -> Option<Function> {
        let taken = self.functions.get_mut(slot).filter(|_| slot != 0)?;
        let mut function = taken.take()?;
        for gone in self.placed.extract_if(.., |placement| placement.slot == slot) {
            remove(&self.memory, &mut function, gone);
        }
        // What it was in the way of can be decoded now.
        self.place();
        Some(function)
    }

    /// The lowest free slot.
    pub fn free_slot(&self) -> Option<usize> {
        self.functions.iter().position(Option::is_none)
    }

    /// Works out where all BARs are, and makes it so.
    fn place(&mut self) {
        let wanted = self.wanted();
        let gone = self
            .placed
            .extract_if(.., |placement| !wanted.contains(placement))
            .collect::<Vec<_>>();
        for gone in gone {
            if let Some(function) = self.functions[gone.slot].as_mut() {
                remove(&self.memory, function, gone);
            }
        }
        for new in wanted {
            if !self.placed.contains(&new)
                && let Some(function) = self.functions[new.slot].as_mut()
            {
                insert(&self.memory, function, new);
                self.placed.push(new);
            }
        }
    }

    /// The BARs that lie in a window as a whole and over no other; among those that overlap the first one wins.
    fn wanted(&self) -> Vec<Placement> {
        let mut wanted: Vec<Placement> = Vec::new();
        for (slot, function) in self.functions.iter().enumerate() {
            for (bar, range) in function.iter().flat_map(Function::bars) {
                let inside = self.windows.iter().any(|window| window.contains(range));
                if inside && !wanted.iter().any(|other| other.range.overlaps(range)) {
                    wanted.push(Placement { slot, bar, range });
                }
            }
        }
        wanted
    }
}

impl BusDevice for Host {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((slot, register)) = register(offset, data.len())
            && let Some(function) = &mut self.functions[slot]
        {
            function.read(register, data);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some((slot, register)) = register(offset, data.len())
            && let Some(function) = &mut self.functions[slot]
        {
            function.write(register, data);
            self.place();
        }
    }
}

/// Slot and register of an access that configuration space takes: one, two or four bytes, aligned, of function 0.
fn register(offset: u64, width: usize) -> Option<(usize, u16)> {
    let slot = usize::try_from(offset >> SLOT_SHIFT).ok()?;
    let register = u16::try_from(offset & REGISTER).ok()?;
    let fits = matches!(width, 1 | 2 | 4) && offset.is_multiple_of(width as u64);
    (fits && slot < SLOTS && offset & FUNCTION == 0).then_some((slot, register))
}

fn insert(memory: &Bus, function: &mut Function, placement: Placement) {
    for region in function.regions(placement.bar) {
        // Placements do not overlap, nor do the regions of a BAR, so there is room.
        memory
            .insert(
                region.range.moved(placement.range.base),
                Arc::clone(&region.device),
            )
            .ok();
    }
    function.placed(placement.bar, Some(placement.range.base));
}

fn remove(memory: &Bus, function: &mut Function, placement: Placement) {
    function.placed(placement.bar, None);
    for region in function.regions(placement.bar) {
        memory.remove(region.range.moved(placement.range.base));
    }
}
