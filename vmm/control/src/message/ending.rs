//! How a machine ended: told to clients, and left behind in its run directory.

use serde::{Deserialize, Serialize};

/// How a machine ended; also the content of `exit.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// What ended it.
    pub reason: EndReason,
    /// For people: what happened, in a sentence.
    pub message: String,
}

/// What ended a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndReason {
    /// The guest switched itself off.
    Poweroff,
    /// The guest was reset, and was not to be started again.
    Reset,
    /// Someone asked for it: on the control socket, at the terminal, or by a signal.
    Killed,
    /// The guest was to end by itself, and had not when its time was over.
    Overdue,
    /// The machine could not be started, or could not go on.
    Failed,
}

// === impl EndReason ===

impl EndReason {
    /// The exit status of rvmm, as documented for its users.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Poweroff | Self::Killed | Self::Overdue => 0,
            Self::Failed => 1,
            Self::Reset => 3,
        }
    }
}
