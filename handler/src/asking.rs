//! What those who come through the API say to guests' agents, and hear from them: one command at a time, over rvmm's control socket.

use std::path::Path;
use std::time::Duration;

use rvm_server::agent::Command;
use rvm_server::{AgentError, Agents, Unreachable};
use rvm_types::VirtualMachineInstance;
use rvmm_control::{Client, ClientError, RefusalCode};
use serde_json::{Value, json};

use crate::doors::Doors;
use crate::steps::chain;

#[tonic::async_trait]
impl Agents for Doors {
    async fn tell(&self, vmi: &VirtualMachineInstance, command: Command) -> Result<Value, AgentError> {
        let id = self.here(vmi)?;
        let run = self.machines.run_dir(&id);
        let socket = run.control_socket();
        let said = tokio::task::spawn_blocking(move || say(&socket, command)).await;
        let said = said.map_err(|error| Unreachable::Unavailable(error.into()))??;
        if command == Command::Thaw {
            self.thaws.forget(&run, &id.uid);
        }
        if matches!(command, Command::Thaw | Command::Freeze) {
            self.agents.ask_anew(&id.uid);
            self.watch.wake(&id);
        }
        Ok(said)
    }

    async fn freeze_for(&self, vmi: &VirtualMachineInstance, time: Duration) -> Result<(), AgentError> {
        let id = self.here(vmi)?;
        let run = self.machines.run_dir(&id);
        // First, so that no end of ours can come between: a guest that is not frozen can be thawed.
        let noted = self.thaws.note(run.clone(), &id.uid, time);
        noted.map_err(Unreachable::Unavailable)?;
        let told = self.tell(vmi, Command::Freeze).await;
        if told.is_err() {
            self.thaws.forget(&run, &id.uid);
        }
        told.map(drop)
    }
}

/// Says it to whoever listens in the guest now. Blocks, until there is an answer or the machine has waited long enough for one.
pub(crate) fn say(socket: &Path, command: Command) -> Result<Value, AgentError> {
    let mut client = Client::connect(socket).map_err(|error| unavailable(&error))?;
    if !client.info().map_err(|error| unavailable(&error))?.agent {
        return Err(AgentError::Absent);
    }
    let arguments = (command == Command::Reboot).then(|| json!({"mode": "reboot"}));
    heard(command, client.ask_agent(command.name(), arguments))
}

fn heard(command: Command, said: Result<Value, ClientError>) -> Result<Value, AgentError> {
    match said {
        Ok(said) => Ok(said),
        Err(ClientError::Refused(why)) if why.code == RefusalCode::State => match command {
            // The agent was there and has gone, so it has done it.
            Command::Reboot => Ok(Value::Null),
            _ => Err(AgentError::Absent),
        },
        Err(ClientError::Refused(why)) => Err(AgentError::Refused(why.message)),
        // Who reboots does not say so, and may take its time.
        Err(ClientError::Socket(_)) if command == Command::Reboot => Ok(Value::Null),
        Err(error) => Err(unavailable(&error)),
    }
}

fn unavailable(error: &ClientError) -> AgentError {
    Unreachable::Unavailable(std::io::Error::other(chain(error))).into()
}

#[cfg(test)]
mod tests {
    use rvmm_control::Refusal;

    use super::*;

    fn refused(code: RefusalCode) -> Result<Value, ClientError> {
        Err(ClientError::Refused(Refusal::new(code, "no")))
    }

    #[test]
    fn an_agent_that_goes_away_has_rebooted_or_was_not_there() {
        let silence = || Err(ClientError::Socket(std::io::ErrorKind::WouldBlock.into()));
        assert!(heard(Command::Reboot, refused(RefusalCode::State)).is_ok());
        assert!(heard(Command::Reboot, silence()).is_ok());
        let complaint = heard(Command::Reboot, refused(RefusalCode::Failed));
        assert!(matches!(complaint, Err(AgentError::Refused(why)) if why == "no"));
        let gone = heard(Command::Users, refused(RefusalCode::State));
        assert!(matches!(gone, Err(AgentError::Absent)));
        let silent = heard(Command::Freeze, silence());
        assert!(matches!(silent, Err(AgentError::Unreachable(_))));
    }
}
