//! INTx: a level that a function raises, on a line that it shares with others.

use std::sync::{Arc, Mutex, PoisonError};

use crate::LevelLine;

/// One line of the interrupt controller, high while any of up to 32 functions raises it.
pub struct Wire {
    raised: Mutex<u32>,
    line: Arc<dyn LevelLine>,
}

/// The interrupt pin of one function.
pub struct Intx {
    wire: Arc<Wire>,
    bit: u32,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
struct State {
    asserted: bool,
    allowed: bool,
}

// === impl Wire ===

impl Wire {
    /// A line that nobody raises.
    pub fn new(line: Arc<dyn LevelLine>) -> Self {
        Self {
            raised: Mutex::new(0),
            line,
        }
    }

    fn set(&self, bit: u32, high: bool) {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *raised;
        *raised = if high { before | bit } else { before & !bit };
        if (before == 0) != (*raised == 0) {
            // With the lock held: two changes must not overtake each other.
            self.line.set(*raised != 0);
        }
    }
}

// === impl Intx ===

impl Intx {
    /// The pin of the function in this slot.
    pub fn new(wire: Arc<Wire>, slot: usize) -> Self {
        Self {
            wire,
            bit: 1 << (slot % 32),
            state: Mutex::new(State {
                asserted: false,
                allowed: true,
            }),
        }
    }

    /// The device has, or no longer has, a reason to interrupt.
    pub fn assert(&self, asserted: bool) {
        self.change(|state| state.asserted = asserted);
    }

    /// The driver lets it interrupt this way, or not.
    pub fn allow(&self, allowed: bool) {
        self.change(|state| state.allowed = allowed);
    }

    /// Whether there is a reason to interrupt.
    pub fn asserted(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).asserted
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.wire.set(self.bit, state.asserted && state.allowed);
    }
}

impl Drop for Intx {
    /// A function that is unplugged pulls nothing up.
    fn drop(&mut self) {
        self.wire.set(self.bit, false);
    }
}
