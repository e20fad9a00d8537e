//! Whether a machine can be spoken to at all: what its console, its ports and its switch have in common.
//!
//! Its object is judged first ([`Unreachable::judge`]); what the object cannot tell, whoever holds the machines does.

use std::io;

use rvm_proto::reasons;
use rvm_types::{Phase, VirtualMachineInstance};
use tonic::Status;

use crate::error::precondition;

/// Why nobody can speak to a machine.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// The machine has yet to start.
    #[error("it does not run yet; its phase is {phase}")]
    NotRunningYet {
        /// Where it is instead.
        phase: Phase,
    },
    /// The machine has ended.
    #[error("it has ended; its phase is {phase}")]
    Ended {
        /// How it ended.
        phase: Phase,
    },
    /// No process runs the machine, whatever its object says.
    #[error("it does not run")]
    NotRunning,
    /// The machine runs on a node that this server does not reach.
    #[error("it runs on node {node:?}, which this server does not reach")]
    AnotherNode {
        /// The node.
        node: String,
    },
    /// The machine's process does not answer.
    #[error("its process does not answer")]
    Unavailable(#[source] io::Error),
}

// === impl Unreachable ===

impl Unreachable {
    /// What the object alone says against it.
    pub(crate) fn judge(vmi: &VirtualMachineInstance) -> Result<(), Self> {
        Self::judge_end(vmi)?;
        match vmi.phase().cloned().unwrap_or(Phase::Pending) {
            phase if phase.is_before_running() => Err(Self::NotRunningYet { phase }),
            _ => Ok(()),
        }
    }

    /// Whether the object says that the machine has ended.
    pub(crate) fn judge_end(vmi: &VirtualMachineInstance) -> Result<(), Self> {
        match vmi.phase().filter(|phase| phase.is_final()).cloned() {
            Some(phase) => Err(Self::Ended { phase }),
            None => Ok(()),
        }
    }

    /// The status that says so, after what was asked for.
    pub(crate) fn status(&self, asked: &str) -> Status {
        let message = format!("{asked}: {self}");
        match self {
            Self::NotRunningYet { phase } => {
                precondition(reasons::NOT_RUNNING_YET, message, &[("phase", phase.as_str())])
            }
            Self::Ended { phase } => precondition(reasons::ENDED, message, &[("phase", phase.as_str())]),
            Self::NotRunning => precondition(reasons::NOT_RUNNING_YET, message, &[]),
            Self::AnotherNode { node } => precondition(reasons::ANOTHER_NODE, message, &[("node", node)]),
            Self::Unavailable(source) => Status::unavailable(format!("{message}: {source}")),
        }
    }
}
