//! One function: its configuration space and what lies behind its BARs.

use std::sync::{Arc, Mutex, PoisonError};

use super::config::{BARS, COMMAND, COMMAND_MASTER, COMMAND_NO_INTX, ConfigSpace, STATUS, STATUS_INTX};
use super::intx::Intx;
use super::msix::{self, Msix};
use crate::BusDevice;
use crate::bus::Range;

/// Capability id of MSI-X.
const CAP_MSIX: u8 = 0x11;

/// Told where a BAR is each time that changes; `None` is nowhere.
pub trait Placed: Send {
    /// Called with the bridge locked: must not touch configuration space.
    fn placed(&mut self, base: Option<u64>);
}

/// Told whether a function may reach memory, each time that changes. A function that was just made may not.
pub type Mastering = Box<dyn FnMut(bool) + Send>;

/// A part of a BAR and who answers there.
#[derive(Clone)]
pub struct Region {
    /// Which BAR.
    pub bar: usize,
    /// Where in it.
    pub range: Range,
    /// Who answers.
    pub device: Arc<Mutex<dyn BusDevice>>,
}

/// A function that can be plugged into a [`super::Host`].
pub struct Function {
    config: ConfigSpace,
    regions: Vec<Region>,
    intx: Option<Arc<Intx>>,
    msix: Option<(u16, Arc<Mutex<Msix>>)>,
    window: Option<AccessWindow>,
    registers: Option<(Range, Arc<Mutex<dyn BusDevice>>)>,
    placed: Option<(usize, Box<dyn Placed>)>,
    mastering: Option<Mastering>,
    /// What it was told.
    master: bool,
}

/// Registers in configuration space through which BARs are reached, whether they are decoded or not: for firmware
/// that can do no other access (virtio 1.3, 4.1.4.9).
#[derive(Debug, Clone, Copy)]
pub struct AccessWindow {
    /// One byte: the BAR.
    pub bar: u16,
    /// Four bytes: where in it.
    pub offset: u16,
    /// Four bytes: 1, 2 or 4 bytes are moved.
    pub length: u16,
    /// Four bytes: reading and writing them is the access.
    pub data: u16,
}

// === impl Function ===

impl Function {
    /// A function that answers in these regions.
    pub fn new(config: ConfigSpace, regions: Vec<Region>) -> Self {
        Self {
            config,
            regions,
            intx: None,
            msix: None,
            window: None,
            registers: None,
            placed: None,
            mastering: None,
            master: false,
        }
    }

    /// Interrupts through INTA.
    #[must_use]
    pub fn with_intx(mut self, intx: Arc<Intx>) -> Self {
        self.config.use_intx();
        self.intx = Some(intx);
        self
    }

    /// Interrupts through MSI-X, with its table in a BAR of its own.
    #[must_use]
    pub fn with_msix(mut self, bar: usize, msix: Arc<Mutex<Msix>>) -> Self {
        let last = msix.lock().unwrap_or_else(PoisonError::into_inner).len();
        let control = u16::try_from(last.saturating_sub(1)).unwrap_or(0);
        let register = u32::try_from(bar).unwrap_or(0);
        let pending = u32::try_from(msix::PENDING).unwrap_or(0);
        let mut body = control.to_le_bytes().to_vec();
        body.extend(register.to_le_bytes());
        body.extend((pending | register).to_le_bytes());
        let at = self
            .config
            .add_capability(CAP_MSIX, &body, &msix::CONTROL_WRITABLE.to_le_bytes());
        self.config.add_bar(bar, msix::WINDOW, false);
        let range = Range {
            base: 0,
            len: msix::WINDOW,
        };
        self.regions.push(Region {
            bar,
            range,
            device: Arc::<Mutex<Msix>>::clone(&msix),
        });
        self.msix = Some((at, msix));
        self
    }

    /// Has registers in configuration space that lead to its BARs.
    #[must_use]
    pub fn with_window(mut self, window: AccessWindow) -> Self {
        self.window = Some(window);
        self
    }

    /// Has registers of its own in configuration space, at a multiple of four bytes and of such a length.
    #[must_use]
    pub fn with_registers(mut self, range: Range, device: Arc<Mutex<dyn BusDevice>>) -> Self {
        self.registers = Some((range, device));
        self
    }

    /// Tells someone where this BAR is.
    #[must_use]
    pub fn with_placed(mut self, bar: usize, placed: Box<dyn Placed>) -> Self {
        self.placed = Some((bar, placed));
        self
    }

    /// Tells someone whether it may reach memory.
    #[must_use]
    pub fn with_mastering(mut self, mut mastering: Mastering) -> Self {
        mastering(false);
        self.mastering = Some(mastering);
        self
    }

    /// The guest reads configuration space.
    pub fn read(&mut self, offset: u16, data: &mut [u8]) {
        if let Some(window) = self
            .window
            .filter(|window| touches(window.data, offset, data.len()))
        {
            self.read_through(&window);
        }
        self.config.read(offset, data);
        if let Some((inside, device)) = self.own_register(offset, data.len()) {
            let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
            device.read(inside, data);
        }
        let status = usize::from(STATUS.wrapping_sub(offset));
        if let (Some(intx), Some(byte)) = (&self.intx, data.get_mut(status)) {
            *byte |= if intx.asserted() { STATUS_INTX } else { 0 };
        }
    }

    /// The guest writes configuration space.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
        if let Some((inside, device)) = self.own_register(offset, data.len()) {
            let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
            device.write(inside, data);
        }
        if let Some(window) = self
            .window
            .filter(|window| touches(window.data, offset, data.len()))
        {
            self.write_through(&window);
        }
        let mut uses_messages = false;
        if let Some((at, msix)) = &self.msix {
            let mut msix = msix.lock().unwrap_or_else(PoisonError::into_inner);
            msix.set_control(self.config.word(at + 2));
            uses_messages = msix.enabled();
        }
        let command = self.config.word(COMMAND);
        let master = command & COMMAND_MASTER != 0;
        let was_master = std::mem::replace(&mut self.master, master);
        if let Some(mastering) = self.mastering.as_mut().filter(|_| master != was_master) {
            mastering(master);
        }
        if let Some(intx) = &self.intx {
            intx.allow(!uses_messages && command & COMMAND_NO_INTX == 0);
        }
    }

    /// Where the guest wants its BARs.
    pub fn bars(&self) -> impl Iterator<Item = (usize, Range)> {
        (0..BARS).filter_map(|bar| {
            let (base, len) = self.config.bar(bar)?;
            Some((bar, Range { base, len }))
        })
    }

    /// What a BAR holds.
    pub fn regions(&self, bar: usize) -> impl Iterator<Item = &Region> {
        self.regions.iter().filter(move |region| region.bar == bar)
    }

    /// A BAR is here now.
    pub fn placed(&mut self, bar: usize, base: Option<u64>) {
        if let Some((_, placed)) = self.placed.as_mut().filter(|(which, _)| *which == bar) {
            placed.placed(base);
        }
    }

    /// The function's own registers, if an access lies in them as a whole, and where.
    fn own_register(&self, offset: u16, width: usize) -> Option<(u64, &Mutex<dyn BusDevice>)> {
        let (range, device) = self.registers.as_ref()?;
        let access = Range {
            base: offset.into(),
            len: u64::try_from(width).ok()?,
        };
        let inside = range.contains(access).then(|| access.base - range.base)?;
        Some((inside, &**device))
    }

    /// The region that an access through the window hits as a whole, the offset there, and the width.
    fn target(&self, window: &AccessWindow) -> Option<(&Region, u64, usize)> {
        let bar = usize::from(self.config.word(window.bar) & 0xff);
        let offset = u64::from(self.config.long(window.offset));
        let width = usize::try_from(self.config.long(window.length)).ok()?;
        if !matches!(width, 1 | 2 | 4) || !offset.is_multiple_of(width as u64) {
            return None;
        }
        self.regions(bar).find_map(|region| {
            let inside = offset.checked_sub(region.range.base)?;
            (inside + width as u64 <= region.range.len).then_some((region, inside, width))
        })
    }

    fn read_through(&mut self, window: &AccessWindow) {
        let mut data = [0xff; 4];
        if let Some((region, offset, width)) = self.target(window) {
            let mut device = region.device.lock().unwrap_or_else(PoisonError::into_inner);
            device.read(offset, &mut data[..width]);
        }
        self.config.set(window.data, &data);
    }

    fn write_through(&self, window: &AccessWindow) {
        let data = self.config.long(window.data).to_le_bytes();
        if let Some((region, offset, width)) = self.target(window) {
            let mut device = region.device.lock().unwrap_or_else(PoisonError::into_inner);
            device.write(offset, &data[..width]);
        }
    }
}

/// Whether an access has a byte in common with the four at `register`.
fn touches(register: u16, offset: u16, width: usize) -> bool {
    let (register, offset) = (usize::from(register), usize::from(offset));
    offset < register + 4 && offset + width > register
}
