//! A disk that cannot do what the guest asks of it: the machine is paused, whichever backend runs it, and everyone is told.

use rvmm_control::{DiskError, Event};

use super::Supervisor;

impl Supervisor<'_> {
    /// A disk's request waits. It is tried again when the machine goes on, so this may come again at once.
    pub(super) fn disk_failed(&mut self, error: rvmm_backends::DiskError) {
        self.say(&format!(
            "{} failed, so the machine is paused: {}",
            error.disk, error.why
        ));
        let error = DiskError {
            disk: error.disk,
            message: error.why,
        };
        self.notify(Event::DiskError(error.clone()));
        self.disk_error = Some(error);
        // Whatever is wished of it otherwise: a guest that goes on only waits for its disk. QEMU's stands already.
        self.guest.iter().for_each(super::Guest::pause);
    }
}
