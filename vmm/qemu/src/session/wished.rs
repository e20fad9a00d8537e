//! What is wished of the guest as a whole, and asked about it: one command each, as soon as it may be given.

use rvmm_control::Stats;

use super::{Progress, Session};
use crate::QemuError;
use crate::qmp;

// === impl Session ===

impl Session {
    /// Has the vCPUs do what is wished, once the start is over.
    pub(super) fn stand_or_go(&mut self) -> Result<(), QemuError> {
        if self.progress != Progress::Started || self.ends.wishes.is_paused() == self.paused {
            return Ok(());
        }
        self.tell_vcpus(Progress::Started)
    }

    /// Tells the vCPUs what is wished of them.
    pub(super) fn tell_vcpus(&mut self, next: Progress) -> Result<(), QemuError> {
        self.paused = self.ends.wishes.is_paused();
        let command = if self.paused { qmp::STOP } else { qmp::CONTINUE };
        self.say(command, next)
    }

    /// Tells the balloon what is wished, once the guest runs.
    pub(super) fn blow_up(&mut self) -> Result<(), QemuError> {
        if self.progress != Progress::Started {
            return Ok(());
        }
        match self.ends.wishes.take_balloon() {
            Some(bytes) => self.say(qmp::balloon(bytes).as_bytes(), Progress::Started),
            None => Ok(()),
        }
    }

    /// Asks QEMU what it counts, if someone wants to know and the answers before are there. Until the guest runs, nothing is counted.
    pub(super) fn count(&mut self) -> Result<(), QemuError> {
        if !self.counting.is_over() {
            return Ok(());
        }
        let who = self.ends.wishes.take_counts();
        if self.progress != Progress::Started {
            who.into_iter().for_each(|tell| tell(Stats::default()));
            return Ok(());
        }
        if who.is_empty() {
            return Ok(());
        }
        for command in self.counting.begin(who, self.ends.has_balloon) {
            self.say(format!("{command}\n").as_bytes(), Progress::Started)?;
        }
        Ok(())
    }
}
