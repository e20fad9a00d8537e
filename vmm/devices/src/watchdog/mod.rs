//! The watchdog of Intel's 6300ESB: a guest that does not feed it for two stages of time is given up.
//!
//! ```text
//!   switched on ─► stage 1 ── its time is up: a status bit ──► stage 2 ── its time is up ──► bite: the machine acts
//!                     ▲                                           │   (if the guest lets it)
//!                     └────────────── fed ◄───────────────────────┘
//! ```
//!
//! Two registers are in configuration space (control, lock), four in memory (a preload a stage, status, reload); see
//! `registers.rs`. Those that matter take a write only after two magic ones, so that a guest gone astray feeds by no
//! accident. A stage's preload counts PCI clocks of 30 ns, 2^15 or 2^5 at a time, as QEMU's does. The interrupt that the chip can
//! raise after the first stage goes to an interrupt controller that this machine does not have; Linux switches it off.
//!
//! The time is the injected clock's, less what the machine stood still; the timer belongs to whoever runs the device, and
//! calls [`Watchdog::time_is_up`].

mod registers;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::bus::Range;
use crate::pci::{ConfigSpace, Function, Identity, Region};
use registers::{CONFIG, Control, Memory};

/// The BAR with the registers in memory, and its bytes.
const BAR: usize = 0;
const BAR_LEN: u64 = 16;

/// Bits of a preload register.
const PRELOAD: u32 = 0xf_ffff;
/// A clock of the PCI bus.
const CLOCK: Duration = Duration::from_nanos(30);
/// Clocks that a preload counts at a time, at the slow and at the fast rate.
const SLOW: u32 = 1 << 15;
const FAST: u32 = 1 << 5;
/// The shortest stage: a guest that lets it run freely must not keep the event loop for itself.
const SHORTEST: Duration = Duration::from_millis(1);

const IDENTITY: Identity = Identity {
    id: (0x8086, 0x25ab),
    subsystem: (0x1af4, 0x1100),
    class: 0x08_8000,
    revision: 0,
};

/// Time that goes on by itself, from some moment on.
pub type Clock = dyn Fn() -> Duration + Send;

/// Tells when [`Watchdog::time_is_up`] is to be called: in so long from now, or never.
pub type Timer = dyn Fn(Option<Duration>) + Send;

/// The watchdog.
pub struct Watchdog {
    clock: Box<Clock>,
    timer: Box<Timer>,
    bite: Box<dyn Fn() + Send>,
    state: State,
    /// Since when the machine stands still.
    standing: Option<Duration>,
}

/// What a reset of the device sets back.
#[derive(Debug, Clone, Copy)]
struct State {
    /// The guest does not want to be given up.
    harmless: bool,
    fast: bool,
    /// What the first stage's end does: bits that are kept for the guest.
    interrupt: u16,
    locked: bool,
    enabled: bool,
    /// After the second stage the first one begins again.
    free_running: bool,
    preload: [u32; 2],
    /// The first stage has ended.
    noticed: bool,
    /// It has bitten.
    bitten: bool,
    unlocking: Unlocking,
    count: Option<Count>,
}

/// How much of the magic has been said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unlocking {
    Nothing,
    First,
    Both,
}

/// A stage that counts.
#[derive(Debug, Clone, Copy)]
struct Count {
    stage: usize,
    until: Duration,
}

// === impl Watchdog ===

impl Watchdog {
    /// One that is switched off. `timer` and `bite` are called with the device locked.
    pub fn new(
        clock: impl Fn() -> Duration + Send + 'static,
        timer: impl Fn(Option<Duration>) + Send + 'static,
        bite: impl Fn() + Send + 'static,
    ) -> Self {
        Self {
            clock: Box::new(clock),
            timer: Box::new(timer),
            bite: Box::new(bite),
            state: State::NEW,
            standing: None,
        }
    }

    /// The time that `timer` was given has come. Too early a call does nothing but set the timer again.
    pub fn time_is_up(&mut self) {
        let count = self.state.count.filter(|count| count.until <= self.now());
        match count {
            Some(Count { stage: 0, .. }) => {
                self.state.noticed = true;
                self.begin(1);
            }
            Some(_) => self.end(),
            None => self.set_timer(),
        }
    }

    /// The machine stands still, and its time with it.
    pub fn stand_still(&mut self) {
        if self.standing.is_none() {
            self.standing = Some((self.clock)());
            self.set_timer();
        }
    }

    /// The machine goes on.
    pub fn go_on(&mut self) {
        if let Some(since) = self.standing.take() {
            let stood = (self.clock)().saturating_sub(since);
            if let Some(count) = &mut self.state.count {
                count.until += stood;
            }
            self.set_timer();
        }
    }

    /// Both stages are over.
    fn end(&mut self) {
        let free_running = self.state.free_running;
        self.state.count = None;
        if !self.state.harmless {
            self.state = State {
                bitten: true,
                ..State::NEW
            };
            self.set_timer();
            (self.bite)();
        } else if free_running {
            self.begin(0);
        } else {
            self.set_timer();
        }
    }

    fn begin(&mut self, stage: usize) {
        if self.state.enabled {
            let until = self.now() + self.state.length(stage);
            self.state.count = Some(Count { stage, until });
        }
        self.set_timer();
    }

    fn switch(&mut self, enabled: bool) {
        let was = std::mem::replace(&mut self.state.enabled, enabled);
        if enabled && !was {
            self.begin(0);
        } else if !enabled {
            self.state.count = None;
            self.set_timer();
        }
    }

    fn now(&self) -> Duration {
        self.standing.unwrap_or_else(|| (self.clock)())
    }

    fn set_timer(&self) {
        let counts = self.state.count.filter(|_| self.standing.is_none());
        let wait = counts.map(|count| count.until.saturating_sub(self.now()));
        (self.timer)(wait);
    }
}

// === impl State ===

impl State {
    const NEW: Self = Self {
        harmless: false,
        fast: false,
        interrupt: 0,
        locked: false,
        enabled: false,
        free_running: false,
        preload: [PRELOAD; 2],
        noticed: false,
        bitten: false,
        unlocking: Unlocking::Nothing,
        count: None,
    };

    fn length(&self, stage: usize) -> Duration {
        let preload = self.preload.get(stage).copied().unwrap_or(PRELOAD);
        let clocks = if self.fast { FAST } else { SLOW };
        // 2^20 times 2^15 clocks are some 17 minutes.
        (CLOCK * clocks * preload).max(SHORTEST)
    }
}

/// The watchdog as a PCI function without an interrupt.
pub fn function(watchdog: &Arc<Mutex<Watchdog>>) -> Function {
    let mut config = ConfigSpace::new(&IDENTITY);
    config.add_bar(BAR, BAR_LEN, false);
    let range = Range {
        base: 0,
        len: BAR_LEN,
    };
    let region = Region {
        bar: BAR,
        range,
        device: Arc::new(Mutex::new(Memory(Arc::clone(watchdog)))),
    };
    let control = Arc::new(Mutex::new(Control(Arc::clone(watchdog))));
    Function::new(config, vec![region]).with_registers(CONFIG, control)
}
