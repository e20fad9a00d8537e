//! Ending a machine without taking its object away.

use std::io;
use std::time::Duration;

use rvm_types::VirtualMachineInstance;
use tonic::Status;

use crate::error::precondition;

/// Whoever can end machines: the handler.
#[tonic::async_trait]
pub trait Power: Send + Sync + 'static {
    /// Asks the guest to shut down and cuts it off when the grace period (the machine's own, where none is given) is
    /// over. Returns when the guest has been asked; the object stays, and its phase becomes Succeeded or Failed.
    async fn stop(&self, vmi: &VirtualMachineInstance, grace: Option<Duration>) -> Result<(), StopError>;
}

/// Why a machine cannot be ended.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// No process runs it.
    #[error("it does not run")]
    NotRunning,
    /// It runs on a node that this server does not reach.
    #[error("it runs on node {node:?}, which this server does not reach")]
    AnotherNode {
        /// The node.
        node: String,
    },
    /// Its process does not answer.
    #[error("its process does not answer")]
    Unavailable(#[source] io::Error),
}

/// The status that says so about this machine.
pub(crate) fn refusal(name: &str, error: &StopError) -> Status {
    let message = format!("{name:?} cannot be stopped: {error}");
    match error {
        StopError::NotRunning => precondition(rvm_proto::reasons::NOT_RUNNING_YET, message, &[]),
        StopError::AnotherNode { node } => {
            precondition(rvm_proto::reasons::ANOTHER_NODE, message, &[("node", node)])
        }
        StopError::Unavailable(source) => Status::unavailable(format!("{message}: {source}")),
    }
}
