//! What a vCPU's thread does: run the guest, hand its exits to the bus and the firmware, until someone ends it.
//!
//! ```text
//!   run ─► mmio ─► bus ─► device (its lock)         Continue
//!       ─► sbi  ─► firmware                         Continue
//!       ─► shutdown | reset | fault ─► Gate::report, once a machine
//!       ─► interrupted ─► Gate::pass ─► parked while paused, or the end of the thread
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rvmm_devices::bus::Bus;
use rvmm_hypervisor::{ExitHandler, Next, Vcpu, sbi};
use rvmm_sandbox::Confined;
use rvmm_spec::Outcome;

use crate::counters::Counters;
use crate::firmware::Firmware;
use crate::gate::Gate;

/// Unknown exits are logged until this many; a guest must not fill the log.
const MAX_LOGGED: u64 = 8;

/// What answers one vCPU's exits.
pub struct Exits {
    /// Device registers.
    pub bus: Arc<Bus>,
    /// SBI calls.
    pub firmware: Firmware,
    /// Exits that nobody knew, for all vCPUs together.
    pub unknown: Arc<AtomicU64>,
    /// What this vCPU did.
    pub counters: Arc<Counters>,
}

/// Runs a vCPU until the machine ends, on a thread that is confined.
pub fn run(vcpu: &mut dyn Vcpu, exits: &mut Exits, gate: &Gate, _confined: &Confined) {
    while gate.pass() {
        match vcpu.run(exits) {
            Ok(Next::Continue) => {}
            Ok(Next::Interrupted) => drop(exits.counters.interrupted.add()),
            Ok(Next::Shutdown) => return gate.report(Outcome::Poweroff),
            Ok(Next::Reset) => return gate.report(Outcome::Reset),
            Err(error) => return gate.report(Outcome::Failed(one_line(&error))),
        }
    }
}

/// An error with its causes on one line.
pub(crate) fn one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

// === impl Exits ===

impl Exits {
    /// The same for another vCPU, with counters of its own.
    pub fn for_another(&self) -> Self {
        Self {
            bus: Arc::clone(&self.bus),
            firmware: self.firmware.clone(),
            unknown: Arc::clone(&self.unknown),
            counters: Arc::default(),
        }
    }
}

impl ExitHandler for Exits {
    fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        self.counters.mmio_read.add();
        self.bus.read(address, data);
    }

    fn mmio_write(&mut self, address: u64, data: &[u8]) {
        self.counters.mmio_write.add();
        self.bus.write(address, data);
    }

    fn sbi(&mut self, call: &sbi::Call) -> Option<sbi::Answer> {
        self.counters.sbi.add();
        let answer = self.firmware.call(call);
        if answer.is_none() {
            self.counters.sbi_unknown.add();
        }
        answer
    }

    fn seed(&mut self) -> u16 {
        self.counters.seed.add();
        let mut bits = [0; 2];
        // Before its pool is ready, which a host that runs VMs is long past, the kernel gives nothing: the guest
        // then sees zeros once and mixes them with its other sources.
        rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty()).ok();
        u16::from_ne_bytes(bits)
    }

    fn unknown(&mut self, reason: u32) {
        self.counters.unknown.add();
        if self.unknown.fetch_add(1, Ordering::Relaxed) < MAX_LOGGED {
            tracing::warn!(reason, "the guest left by an exit that is not known; it goes on");
        }
    }
}
