//! The phases of a machine's life.
//!
//! ```text
//!   Pending ─► Scheduling ─► Scheduled ─► Running ─► Succeeded   the guest shut down, or was asked to and did
//!      │            │            │           └─────► Failed      it crashed, or outlived its grace period
//!      └────────────┴────────────┴─────────────────► Failed      it never started
//! ```
//!
//! A paused machine stays Running. Nothing leaves Succeeded and Failed: a machine that runs again is a new object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::status::{PhaseTransition, VirtualMachineInstanceStatus};
use crate::word::open_words;

open_words! {
    /// Where a machine is in its life. Phases that rvm never sets are kept as they were read.
    Phase {
        /// Accepted, and claimed by no node.
        Pending,
        /// A node is being found for it.
        Scheduling,
        /// Its node has claimed it and is starting it.
        Scheduled,
        /// Its processors run, or are paused.
        Running,
        /// It ended as it should.
        Succeeded,
        /// It ended as it should not.
        Failed,
        /// Its node does not answer.
        Unknown,
    }
}

impl Phase {
    /// Whether the machine has ended, and stays so.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }

    /// Whether the machine has yet to run.
    pub fn is_before_running(&self) -> bool {
        match self {
            Self::Pending | Self::Scheduling | Self::Scheduled => true,
            Self::Other(phase) => phase.is_empty(),
            _ => false,
        }
    }
}

impl VirtualMachineInstanceStatus {
    /// Enters a phase and notes when. Entering the phase that already holds changes nothing and returns false.
    pub fn enter(&mut self, phase: Phase, at: Time) -> bool {
        if self.phase.as_ref() == Some(&phase) {
            return false;
        }
        self.phase = Some(phase.clone());
        self.phase_transition_timestamps.push(PhaseTransition {
            phase: Some(phase),
            phase_transition_timestamp: Some(at),
            ..PhaseTransition::default()
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::now;

    #[test]
    fn a_phase_is_entered_once() {
        let mut status = VirtualMachineInstanceStatus::default();
        assert!(status.enter(Phase::Pending, now()));
        assert!(status.enter(Phase::Running, now()));
        assert!(!status.enter(Phase::Running, now()));
        assert_eq!(status.phase, Some(Phase::Running));
        assert_eq!(status.phase_transition_timestamps.len(), 2);
    }

    #[test]
    fn a_foreign_phase_is_kept() {
        let phase: Phase = serde_json::from_str("\"WaitingForSync\"").unwrap();
        assert_eq!(phase, Phase::Other("WaitingForSync".to_owned()));
        assert_eq!(serde_json::to_string(&phase).unwrap(), "\"WaitingForSync\"");
    }
}
