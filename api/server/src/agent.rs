//! What a guest's agent is told and asked, whoever leads to it.
//!
//! The commands are QEMU's; which there are is said here, so that nobody who comes through the API can have a guest run what it likes.

use std::time::Duration;

use rvm_proto::reasons;
use rvm_proto::v1::agent_request::Command as Asked;
use rvm_types::VirtualMachineInstance;
use serde_json::Value;
use tonic::Status;

use crate::error::{invalid_argument, precondition};
use crate::reach::Unreachable;

/// What an agent can be told or asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Which agent it is, and what it knows.
    Info,
    /// The guest's name.
    HostName,
    /// The guest's system.
    System,
    /// Its time zone.
    TimeZone,
    /// Who is logged in.
    Users,
    /// Its mounted file systems.
    FileSystems,
    /// Everything is to be on disk, and nothing written any more.
    Freeze,
    /// It may be written again.
    Thaw,
    /// The guest is to boot again, as its own command does it. Nobody answers that.
    Reboot,
}

/// The same commands, as they are asked for by gRPC.
const ASKED: [(Asked, Command); 9] = [
    (Asked::Info, Command::Info),
    (Asked::HostName, Command::HostName),
    (Asked::System, Command::System),
    (Asked::TimeZone, Command::TimeZone),
    (Asked::Users, Command::Users),
    (Asked::FileSystems, Command::FileSystems),
    (Asked::Freeze, Command::Freeze),
    (Asked::Thaw, Command::Thaw),
    (Asked::Reboot, Command::Reboot),
];

/// Why an agent has said nothing.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The machine cannot be spoken to.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// No agent listens in the guest.
    #[error("no guest agent listens")]
    Absent,
    /// It could not, or did not want to. The guest's word.
    #[error("{0}")]
    Refused(String),
}

/// Whoever leads to guests' agents: the handler.
#[tonic::async_trait]
pub trait Agents: Send + Sync + 'static {
    /// What the agent says to that. The guest's word, which may be anything.
    async fn tell(&self, vmi: &VirtualMachineInstance, command: Command) -> Result<Value, AgentError>;

    /// Has the guest frozen as [`Command::Freeze`] does, and thawed after this time, in place of what was to be done before. Whoever has
    /// the machine sees to that, also when it is started anew meanwhile; [`Command::Thaw`] ends it.
    async fn freeze_for(&self, vmi: &VirtualMachineInstance, time: Duration) -> Result<(), AgentError>;
}

// === impl Command ===

impl Command {
    /// The command's name in QEMU's protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "guest-info",
            Self::HostName => "guest-get-host-name",
            Self::System => "guest-get-osinfo",
            Self::TimeZone => "guest-get-timezone",
            Self::Users => "guest-get-users",
            Self::FileSystems => "guest-get-fsinfo",
            Self::Freeze => "guest-fsfreeze-freeze",
            Self::Thaw => "guest-fsfreeze-thaw",
            Self::Reboot => "guest-shutdown",
        }
    }

    /// The verb and the subresource by which roles know it.
    pub(crate) fn subresource(self) -> (&'static str, &'static str) {
        match self {
            Self::Info | Self::HostName | Self::System | Self::TimeZone => ("get", "guestosinfo"),
            Self::Users => ("get", "userlist"),
            Self::FileSystems => ("get", "filesystemlist"),
            Self::Freeze => ("update", "freeze"),
            Self::Thaw => ("update", "unfreeze"),
            Self::Reboot => ("update", "softreboot"),
        }
    }
}

/// What a call asks for.
pub(crate) fn wanted(asked: Asked) -> Result<Command, Status> {
    let found = ASKED.iter().find(|(one, _)| *one == asked);
    let found = found.map(|(_, command)| *command);
    found.ok_or_else(|| invalid_argument("the request does not say what the agent is to do"))
}

/// The same, for the one who asks.
impl From<Command> for Asked {
    fn from(command: Command) -> Self {
        let found = ASKED.iter().find(|(_, one)| *one == command);
        found.map_or(Self::Unspecified, |(asked, _)| *asked)
    }
}

/// The status that says so about this machine.
pub(crate) fn refusal(name: &str, error: &AgentError) -> Status {
    let asked = format!("the agent of {name:?} does not answer");
    match error {
        AgentError::Unreachable(why) => why.status(&asked),
        AgentError::Absent => precondition(reasons::NO_AGENT, format!("{asked}: {error}"), &[]),
        // As it is: whoever asked for another passes it on.
        AgentError::Refused(word) => precondition(reasons::AGENT_REFUSED, word, &[]),
    }
}
