//! Ending a machine without taking its object away.

use std::time::Duration;

use rvm_types::VirtualMachineInstance;

use crate::reach::Unreachable;

/// Whoever can end machines: the handler.
#[tonic::async_trait]
pub trait Power: Send + Sync + 'static {
    /// Asks the guest to shut down and cuts it off when the grace period (the machine's own, where none is given) is
    /// over. Returns when the guest has been asked; the object stays, and its phase becomes Succeeded or Failed.
    async fn stop(&self, vmi: &VirtualMachineInstance, grace: Option<Duration>) -> Result<(), Unreachable>;
}
