//! The balloon as those outside the guest use it: a target for the guest, and what it says of its memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rvmm_devices::virtio::Core;
use rvmm_devices::virtio::balloon::{Balloon, BalloonHandle, BalloonStats};
use rvmm_spec::MemorySize;

/// The balloon of a machine that runs.
#[derive(Clone)]
pub struct BalloonControl {
    handle: BalloonHandle,
    core: Arc<Mutex<Core>>,
}

// === impl BalloonControl ===

impl BalloonControl {
    pub(crate) fn new(handle: BalloonHandle, core: Arc<Mutex<Core>>) -> Self {
        Self { handle, core }
    }

    /// Asks the guest to give up this much of its memory in all, or to take back what is beyond. When and whether it
    /// does is up to the guest: [`BalloonControl::actual`] tells.
    pub fn set_target(&self, target: MemorySize) {
        self.handle.set_target(target.bytes());
        self.core().config_changed();
    }

    /// What the guest was asked to give up.
    pub fn target(&self) -> MemorySize {
        MemorySize::from_bytes(self.handle.target())
    }

    /// What the guest says it has given up.
    pub fn actual(&self) -> MemorySize {
        MemorySize::from_bytes(self.handle.actual())
    }

    /// Bytes that went back to the host, by the balloon and by reports of free pages; a page that went back twice counts
    /// twice.
    pub fn released(&self) -> u64 {
        self.handle.released()
    }

    /// The guest's statistics as they came last; newer ones are asked for, and come when the guest gets to it.
    pub fn stats(&self) -> BalloonStats {
        let stats = self.handle.stats();
        self.handle.refresh_stats();
        self.core().run_queue(Balloon::STATS);
        stats
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
