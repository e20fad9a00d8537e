//! The switches of a machine: what is done with it without touching its object.

use std::time::Duration;

use rvm_types::VirtualMachineInstance;

use crate::reach::Unreachable;

/// What can be done with a machine that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Its processors stop where they are.
    Pause,
    /// They go on.
    Resume,
    /// It boots again, as if its reset button were pressed.
    Reset,
}

/// Whoever has the machines' switches: the handler.
#[tonic::async_trait]
pub trait Power: Send + Sync + 'static {
    /// Asks the guest to shut down and cuts it off when the grace period (the machine's own, where none is given) is
    /// over. Returns when the guest has been asked; the object stays, and its phase becomes Succeeded or Failed.
    async fn stop(&self, vmi: &VirtualMachineInstance, grace: Option<Duration>) -> Result<(), Unreachable>;

    /// Does this with a machine that runs, at once.
    async fn act(&self, vmi: &VirtualMachineInstance, act: Act) -> Result<(), Unreachable>;
}
