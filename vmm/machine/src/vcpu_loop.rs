//! What a vCPU's thread does: run the guest, hand its exits to the bus and the firmware, until someone ends it.
//!
//! ```text
//!   run ─► mmio ─► bus ─► device (its lock)         Continue
//!       ─► sbi  ─► firmware                         Continue
//!       ─► shutdown | reset | fault ─► Ending::report, once a machine
//!       ─► interrupted ─► stop flag? ─► end of thread
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rvmm_devices::bus::Bus;
use rvmm_hypervisor::{ExitHandler, Next, Vcpu, sbi};
use rvmm_spec::Outcome;

use crate::firmware::Firmware;

/// Unknown exits are logged until this many; a guest must not fill the log.
const MAX_LOGGED: u64 = 8;

/// Called once, from whichever thread sees the machine's end first.
pub type OnEnd = Box<dyn Fn(Outcome) + Send + Sync>;

/// The end of a machine, which is reported once and asked for by a flag.
pub struct Ending {
    stop: AtomicBool,
    reported: AtomicBool,
    on_end: OnEnd,
}

/// What answers one vCPU's exits.
#[derive(Clone)]
pub struct Exits {
    /// Device registers.
    pub bus: Arc<Bus>,
    /// SBI calls.
    pub firmware: Firmware,
    /// Exits that nobody knew, for all vCPUs together.
    pub unknown: Arc<AtomicU64>,
}

/// Runs a vCPU until the machine ends.
pub fn run(vcpu: &mut dyn Vcpu, exits: &mut Exits, ending: &Ending) {
    while !ending.stop.load(Ordering::Acquire) {
        match vcpu.run(exits) {
            Ok(Next::Continue | Next::Interrupted) => {}
            Ok(Next::Shutdown) => return ending.report(Outcome::Poweroff),
            Ok(Next::Reset) => return ending.report(Outcome::Reset),
            Err(error) => return ending.report(Outcome::Failed(one_line(&error))),
        }
    }
}

/// An error with its causes on one line.
pub(crate) fn one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

// === impl Ending ===

impl Ending {
    /// An end that is yet to come.
    pub fn new(on_end: OnEnd) -> Self {
        Self {
            stop: AtomicBool::new(false),
            reported: AtomicBool::new(false),
            on_end,
        }
    }

    /// Reports how the machine ended, unless that has been done.
    pub fn report(&self, outcome: Outcome) {
        if !self.reported.swap(true, Ordering::AcqRel) {
            (self.on_end)(outcome);
        }
    }

    /// Makes every vCPU's thread end when it next leaves the guest. Nothing is reported from now on.
    pub fn ask(&self) {
        self.reported.store(true, Ordering::Release);
        self.stop.store(true, Ordering::Release);
    }
}

// === impl Exits ===

impl ExitHandler for Exits {
    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        self.bus.read(address, data);
    }

    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        self.bus.write(address, data);
    }

    fn sbi(&mut self, call: &sbi::Call) -> Option<sbi::Answer> {
        self.firmware.call(call)
    }

    fn seed(&mut self) -> u16 {
        let mut bits = [0; 2];
        // Before its pool is ready, which a host that runs VMs is long past, the kernel gives nothing: the guest
        // then sees zeros once and mixes them with its other sources.
        rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty()).ok();
        u16::from_ne_bytes(bits)
    }

    fn unknown(&mut self, reason: u32) {
        if self.unknown.fetch_add(1, Ordering::Relaxed) < MAX_LOGGED {
            tracing::warn!(reason, "the guest left by an exit that is not known; it goes on");
        }
    }
}
