//! The registers of the watchdog, as its data sheet and Linux's driver know them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{PRELOAD, State, Unlocking, Watchdog};
use crate::BusDevice;
use crate::bus::Range;

/// Where its registers in configuration space are.
pub(super) const CONFIG: Range = Range {
    base: 0x60,
    len: CONFIG_LEN as u64,
};
const CONFIG_LEN: usize = 0x0c;

/// Two bytes: what it does. Offsets are from [`CONFIG`].
const CONTROL: usize = 0;
const CONTROL_HARMLESS: u16 = 1 << 5;
const CONTROL_FAST: u16 = 1 << 2;
const CONTROL_INTERRUPT: u16 = 0b11;
/// One byte: whether it does.
const LOCK: usize = 8;
const LOCK_FREE_RUNNING: u8 = 1 << 2;
const LOCK_ENABLED: u8 = 1 << 1;
const LOCK_LOCKED: u8 = 1 << 0;

/// Four bytes: how long the first stage is; behind it the second one's.
const TIMER_1: u64 = 0x0;
const TIMER_2: u64 = 0x4;
/// One bit: the first stage has ended.
const STATUS: u64 = 0x8;
const STATUS_NOTICED: u32 = 1;
/// Two bytes: feeds it, and says whether it has bitten.
const RELOAD: u64 = 0xc;
const RELOAD_FEED: u32 = 1 << 8;
const RELOAD_BITTEN: u32 = 1 << 9;

/// What has to be written to [`RELOAD`] before a write counts.
const MAGIC: [u32; 2] = [0x80, 0x86];

/// The registers in configuration space.
pub(super) struct Control(pub(super) Arc<Mutex<Watchdog>>);

/// The registers in memory.
pub(super) struct Memory(pub(super) Arc<Mutex<Watchdog>>);

impl BusDevice for Control {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let bytes = control_bytes(&lock(&self.0).state);
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| bytes.get(offset..));
        data.fill(0);
        for (to, from) in data.iter_mut().zip(rest.unwrap_or_default()) {
            *to = *from;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut watchdog = lock(&self.0);
        let mut bytes = control_bytes(&watchdog.state);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut is_written = [false; CONFIG_LEN];
        for (at, byte) in (offset..bytes.len()).zip(data) {
            (bytes[at], is_written[at]) = (*byte, true);
        }
        if is_written[CONTROL] || is_written[CONTROL + 1] {
            let control = u16::from_le_bytes([bytes[CONTROL], bytes[CONTROL + 1]]);
            watchdog.state.harmless = control & CONTROL_HARMLESS != 0;
            watchdog.state.fast = control & CONTROL_FAST != 0;
            watchdog.state.interrupt = control & CONTROL_INTERRUPT;
        }
        if is_written[LOCK] && !watchdog.state.locked {
            watchdog.state.locked = bytes[LOCK] & LOCK_LOCKED != 0;
            watchdog.state.free_running = bytes[LOCK] & LOCK_FREE_RUNNING != 0;
            watchdog.switch(bytes[LOCK] & LOCK_ENABLED != 0);
        }
    }
}

fn control_bytes(state: &State) -> [u8; CONFIG_LEN] {
    let if_so = |is_so, bit| if is_so { bit } else { 0 };
    let control = state.interrupt | if_so(state.harmless, CONTROL_HARMLESS) | if_so(state.fast, CONTROL_FAST);
    let if_so = |is_so, bit| if is_so { bit } else { 0 };
    let lock = if_so(state.free_running, LOCK_FREE_RUNNING)
        | if_so(state.enabled, LOCK_ENABLED)
        | if_so(state.locked, LOCK_LOCKED);
    let mut bytes = [0; CONFIG_LEN];
    [bytes[CONTROL], bytes[CONTROL + 1]] = control.to_le_bytes();
    bytes[LOCK] = lock;
    bytes
}

impl BusDevice for Memory {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let state = lock(&self.0).state;
        let register = match offset {
            TIMER_1 => state.preload[0],
            TIMER_2 => state.preload[1],
            STATUS if state.noticed => STATUS_NOTICED,
            RELOAD if state.bitten => RELOAD_BITTEN,
            _ => 0,
        };
        match data.len() {
            1 | 2 | 4 => data.copy_from_slice(&register.to_le_bytes()[..data.len()]),
            _ => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let value = match *data {
            [a] => u32::from(a),
            [a, b] => u32::from_le_bytes([a, b, 0, 0]),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => return,
        };
        let mut watchdog = lock(&self.0);
        match (offset, watchdog.state.unlocking) {
            (RELOAD, _) if value == MAGIC[0] => watchdog.state.unlocking = Unlocking::First,
            (RELOAD, Unlocking::First) if value == MAGIC[1] => watchdog.state.unlocking = Unlocking::Both,
            (STATUS, _) if value & STATUS_NOTICED != 0 => watchdog.state.noticed = false,
            (_, Unlocking::Both) => {
                watchdog.state.unlocking = Unlocking::Nothing;
                watchdog.write_protected(offset, value, data.len());
            }
            _ => watchdog.state.unlocking = Unlocking::Nothing,
        }
    }
}

impl Watchdog {
    /// What takes a write only after the magic.
    fn write_protected(&mut self, offset: u64, value: u32, width: usize) {
        match (offset, width) {
            (TIMER_1, 4) => self.state.preload[0] = value & PRELOAD,
            (TIMER_2, 4) => self.state.preload[1] = value & PRELOAD,
            (RELOAD, 2 | 4) => {
                if value & RELOAD_BITTEN != 0 {
                    self.state.bitten = false;
                }
                if value & RELOAD_FEED != 0 {
                    self.begin(0);
                }
            }
            _ => {}
        }
    }
}

fn lock(watchdog: &Mutex<Watchdog>) -> MutexGuard<'_, Watchdog> {
    watchdog.lock().unwrap_or_else(PoisonError::into_inner)
}
