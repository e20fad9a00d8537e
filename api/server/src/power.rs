//! The switches of a machine: what is done with it without touching its object.

use std::time::Duration;

use rvm_proto::v1::act_request::Act as Asked;
use rvm_types::VirtualMachineInstance;
use tonic::Status;

use crate::error::invalid_argument;
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

// === impl Act ===

impl Act {
    /// The subresource by which roles know it.
    pub(crate) fn subresource(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "unpause",
            Self::Reset => "reset",
        }
    }
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

/// What a call asks for.
pub(crate) fn wanted(asked: Asked) -> Result<Act, Status> {
    match asked {
        Asked::Pause => Ok(Act::Pause),
        Asked::Resume => Ok(Act::Resume),
        Asked::Reset => Ok(Act::Reset),
        Asked::Unspecified => Err(invalid_argument("the request does not say what to do")),
    }
}

/// The same, for the one who asks.
impl From<Act> for Asked {
    fn from(act: Act) -> Self {
        match act {
            Act::Pause => Self::Pause,
            Act::Resume => Self::Resume,
            Act::Reset => Self::Reset,
        }
    }
}
