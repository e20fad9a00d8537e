//! The watchdog of a machine: its time is the host's, its timer in the event loop, its place on the PCI bus.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rvmm_devices::pci::Function;
use rvmm_devices::watchdog::{self, Watchdog};

use crate::MachineError;
use crate::alarm::{self, Alarm};
use crate::gate::Gate;

/// A machine's hand on its watchdog.
#[derive(Clone)]
pub struct Leash(Arc<Mutex<Watchdog>>);

/// A watchdog, its timer, and the function that is to be plugged in. That it bites is told as news.
///
/// # Errors
/// The host has no more descriptors.
pub fn create(gate: &Arc<Gate>) -> Result<(Leash, Alarm, Function), MachineError> {
    let timer = alarm::timer().map_err(|errno| MachineError::Alarm(errno.into()))?;
    let (start, set, bitten) = (Instant::now(), Arc::clone(&timer), Arc::clone(gate));
    let watchdog = Arc::new(Mutex::new(Watchdog::new(
        move || start.elapsed(),
        move |wait| alarm::set(&set, wait),
        move || bitten.report_watchdog(),
    )));
    let function = watchdog::function(&watchdog);
    let alarm = Alarm::new(Arc::<Mutex<Watchdog>>::clone(&watchdog), timer);
    Ok((Leash(watchdog), alarm, function))
}

// === impl Leash ===

impl Leash {
    /// Its time stops.
    pub fn stand_still(&self) {
        self.watchdog().stand_still();
    }

    /// Its time goes on.
    pub fn go_on(&self) {
        self.watchdog().go_on();
    }

    fn watchdog(&self) -> MutexGuard<'_, Watchdog> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
