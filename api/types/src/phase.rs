//! The phases of a machine's life.
//!
//! ```text
//!   Pending ─► Scheduling ─► Scheduled ─► Running ─► Succeeded   the guest shut down, or was asked to and did
//!      │            │            │           └─────► Failed      it crashed, or outlived its grace period
//!      └────────────┴────────────┴─────────────────► Failed      it never started
//! ```
//!
//! A paused machine stays Running. Nothing leaves Succeeded and Failed: a machine that runs again is a new object.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::status::{PhaseTransition, VirtualMachineInstanceStatus};

/// Where a machine is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Phase {
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
    /// A phase that rvm never sets, kept as it was read.
    Other(String),
}

impl Phase {
    /// The phase as the API spells it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Pending => "Pending",
            Self::Scheduling => "Scheduling",
            Self::Scheduled => "Scheduled",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
            Self::Other(phase) => phase,
        }
    }

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

impl From<String> for Phase {
    fn from(phase: String) -> Self {
        match phase.as_str() {
            "Pending" => Self::Pending,
            "Scheduling" => Self::Scheduling,
            "Scheduled" => Self::Scheduled,
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            "Unknown" => Self::Unknown,
            _ => Self::Other(phase),
        }
    }
}

impl From<Phase> for String {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Other(phase) => phase,
            phase => phase.as_str().to_owned(),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl JsonSchema for Phase {
    fn schema_name() -> Cow<'static, str> {
        "Phase".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
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
