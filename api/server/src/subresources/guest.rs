//! What a guest's agent is asked and told: judged by the instance's conditions, then passed on; the answers in KubeVirt's form.
//!
//! ```text
//!   GET …/guestosinfo ─► Running, AgentConnected? ─► a command each ─► report ─► JSON
//!   PUT …/freeze      ─► Running?                 ─► told; who has the machine thaws it when the time is over
//! ```

mod report;

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use http::StatusCode;
use jiff::SignedDuration;
use rvm_proto::reasons;
use rvm_types::names::conditions;
use rvm_types::{Phase, VirtualMachineInstance};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Kind, Refused};
use super::{Machine, NOT_RUNNING, Subresources, holds};
use crate::agent::{AgentError, Command};

/// Longest time for which a guest may be frozen.
const MAX_FREEZE: Duration = Duration::from_secs(24 * 3600);

const NO_AGENT: &str = "VMI does not have guest agent connected";

/// What comes with a freeze.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Freezing {
    unfreeze_timeout: Option<String>,
}

/// `GET …/guestosinfo`
pub(super) async fn system(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
) -> Result<Json<Value>, Refused> {
    server.guest_info(&machine).await.map(Json)
}

/// `GET …/userlist`
pub(super) async fn users(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
) -> Result<Json<Value>, Refused> {
    server.guest_users(&machine).await.map(Json)
}

/// `GET …/filesystemlist`
pub(super) async fn file_systems(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
) -> Result<Json<Value>, Refused> {
    server.guest_file_systems(&machine).await.map(Json)
}

/// `PUT …/softreboot`
pub(super) async fn soft_reboot(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
) -> Result<StatusCode, Refused> {
    server.soft_reboot(&machine).await?;
    Ok(StatusCode::OK)
}

/// `PUT …/freeze`
pub(super) async fn freeze(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    server.freeze(&machine, Freezing::read(&body)?).await?;
    Ok(StatusCode::OK)
}

/// `PUT …/unfreeze`
pub(super) async fn unfreeze(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
) -> Result<StatusCode, Refused> {
    server.unfreeze(&machine).await?;
    Ok(StatusCode::OK)
}

/// A time for which a guest may be frozen; none is none.
pub(crate) fn bounded(time: Duration) -> Result<Option<Duration>, String> {
    if time > MAX_FREEZE {
        return Err(format!("is more than {} s", MAX_FREEZE.as_secs()));
    }
    Ok((!time.is_zero()).then_some(time))
}

// === impl Freezing ===

impl Freezing {
    /// After which time the guest is to be thawed, if any.
    fn read(body: &[u8]) -> Result<Option<Duration>, Refused> {
        let wrong = |error: String| {
            Refused::bad_request(format!(
                "Can not unmarshal Request body to struct, error: {error}"
            ))
        };
        if body.is_empty() {
            return Ok(None);
        }
        let freezing: Self = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
        let Some(text) = freezing.unfreeze_timeout.filter(|text| text != "0") else {
            return Ok(None);
        };
        let time: SignedDuration = text.parse().map_err(|error| wrong(format!("{error}")))?;
        let time = Duration::try_from(time).map_err(|error| wrong(error.to_string()))?;
        bounded(time).map_err(|why| wrong(format!("unfreezeTimeout {why}")))
    }
}

// === impl Subresources ===

impl Subresources {
    /// What a guest says of itself.
    pub(crate) async fn guest_info(&self, machine: &Machine) -> Result<Value, Refused> {
        let vmi = self.with_agent(machine).await?;
        let mut heard = report::Heard::default();
        for (command, place) in heard.places() {
            *place = self.hear(&vmi, command).await?;
        }
        Ok(heard.report())
    }

    /// Who is logged in there.
    pub(crate) async fn guest_users(&self, machine: &Machine) -> Result<Value, Refused> {
        let vmi = self.with_agent(machine).await?;
        let heard = self.hear(&vmi, Command::Users).await?;
        Ok(json!({"metadata": {}, "items": report::users(heard)}))
    }

    /// What is mounted there.
    pub(crate) async fn guest_file_systems(&self, machine: &Machine) -> Result<Value, Refused> {
        let vmi = self.with_agent(machine).await?;
        let heard = self.hear(&vmi, Command::FileSystems).await?;
        Ok(json!({"metadata": {}, "items": report::file_systems(heard)}))
    }

    /// Has the guest boot again by its own means.
    pub(crate) async fn soft_reboot(&self, (namespace, name): &Machine) -> Result<(), Refused> {
        let vmi = self.vmi(namespace, name).await?;
        judge_reboot(&vmi).map_err(|why| Refused::conflict(Kind::Instance, name, why))?;
        self.tell(&vmi, Command::Reboot).await
    }

    /// Has nothing written there any more, for this time if one is given.
    pub(crate) async fn freeze(
        &self,
        (namespace, name): &Machine,
        time: Option<Duration>,
    ) -> Result<(), Refused> {
        let vmi = self.running(namespace, name).await?;
        match time {
            Some(time) => {
                let frozen = self.node.freeze_for(&vmi, time).await;
                frozen.map_err(|error| refused(&vmi, &error))
            }
            None => self.tell(&vmi, Command::Freeze).await,
        }
    }

    /// Lets it be written again.
    pub(crate) async fn unfreeze(&self, (namespace, name): &Machine) -> Result<(), Refused> {
        let vmi = self.running(namespace, name).await?;
        self.tell(&vmi, Command::Thaw).await
    }

    async fn running(&self, namespace: &str, name: &str) -> Result<VirtualMachineInstance, Refused> {
        let vmi = self.vmi(namespace, name).await?;
        match vmi.phase() {
            Some(Phase::Running) => Ok(vmi),
            _ => Err(Refused::conflict(Kind::Instance, name, NOT_RUNNING)),
        }
    }

    async fn with_agent(&self, (namespace, name): &Machine) -> Result<VirtualMachineInstance, Refused> {
        let vmi = self.running(namespace, name).await?;
        if holds(&vmi, conditions::AGENT_CONNECTED) {
            Ok(vmi)
        } else {
            Err(no_agent(name))
        }
    }

    /// What an agent says; nothing where it does not know the command, which is no mistake.
    async fn hear(&self, vmi: &VirtualMachineInstance, command: Command) -> Result<Value, Refused> {
        match self.node.tell(vmi, command).await {
            Ok(said) => Ok(said),
            Err(AgentError::Refused(_)) => Ok(Value::Null),
            Err(error) => Err(refused(vmi, &error)),
        }
    }

    async fn tell(&self, vmi: &VirtualMachineInstance, command: Command) -> Result<(), Refused> {
        let told = self.node.tell(vmi, command).await;
        told.map(drop).map_err(|error| refused(vmi, &error))
    }
}

fn refused(vmi: &VirtualMachineInstance, error: &AgentError) -> Refused {
    match error {
        AgentError::Unreachable(why) => Refused::unreachable(why),
        AgentError::Absent => no_agent(vmi.metadata.name.as_deref().unwrap_or_default()),
        AgentError::Refused(why) => Refused::internal(report::word(why)).because(reasons::AGENT_REFUSED),
    }
}

fn no_agent(name: &str) -> Refused {
    Refused::conflict(Kind::Instance, name, NO_AGENT).because(reasons::NO_AGENT)
}

/// No machine of ours has ACPI's buttons, so nobody but an agent could be asked.
fn judge_reboot(vmi: &VirtualMachineInstance) -> Result<(), &'static str> {
    if vmi.phase() != Some(&Phase::Running) {
        return Err("VM is not running");
    }
    if holds(vmi, conditions::PAUSED) {
        return Err("VMI is paused");
    }
    if !holds(vmi, conditions::AGENT_CONNECTED) {
        return Err("VMI neither have the agent connected nor the ACPI feature enabled");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freeze_has_an_end_where_one_is_said() {
        let read = |body: &str| Freezing::read(body.as_bytes()).map_err(|refused| refused.code);
        assert_eq!(read(""), Ok(None));
        assert_eq!(read(r#"{"unfreezeTimeout":"0s"}"#), Ok(None));
        assert_eq!(
            read(r#"{"unfreezeTimeout":"5m0s"}"#),
            Ok(Some(Duration::from_secs(300)))
        );
        for wrong in [
            r#""soon""#,
            r#"{"unfreezeTimeout":"soon"}"#,
            r#"{"unfreezeTimeout":"-1s"}"#,
            r#"{"unfreezeTimeout":"25h"}"#,
        ] {
            assert_eq!(read(wrong), Err(StatusCode::BAD_REQUEST), "{wrong}");
        }
    }
}
