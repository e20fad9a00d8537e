//! Pausing, unpausing and resetting an instance: judged by its phase and its `Paused` condition, then done by who runs it.
//!
//! The condition follows by itself: it says what the machine does, not what was asked.

use axum::body::Bytes;
use axum::extract::{Path, State};
use http::StatusCode;
use rvm_types::names::conditions;
use rvm_types::{Phase, VirtualMachineInstance, condition};

use super::Subresources;
use super::actions;
use super::answer::{Kind, Refused};
use crate::power::Act;

/// `PUT …/pause`
pub(super) async fn pause(
    State(server): State<Subresources>,
    Path((namespace, name)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    server.instance(&namespace, &name, Act::Pause, &body).await
}

/// `PUT …/unpause`
pub(super) async fn unpause(
    State(server): State<Subresources>,
    Path((namespace, name)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    server.instance(&namespace, &name, Act::Resume, &body).await
}

/// `PUT …/reset`
pub(super) async fn reset(
    State(server): State<Subresources>,
    Path((namespace, name)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    server.instance(&namespace, &name, Act::Reset, &body).await
}

// === impl Subresources ===

impl Subresources {
    async fn instance(
        &self,
        namespace: &str,
        name: &str,
        act: Act,
        body: &[u8],
    ) -> Result<StatusCode, Refused> {
        let dry = actions::is_dry_run(body)?;
        let vmi = self.vmi(namespace, name).await?;
        judge(&vmi, act).map_err(|why| Refused::conflict(Kind::Instance, name, why))?;
        if !dry {
            let acted = self.power.act(&vmi, act).await;
            acted.map_err(|why| Refused::unreachable(&why))?;
        }
        Ok(StatusCode::OK)
    }
}

fn judge(vmi: &VirtualMachineInstance, act: Act) -> Result<(), &'static str> {
    if vmi.phase() != Some(&Phase::Running) {
        return Err("VMI is not running");
    }
    let status = vmi.status.as_ref();
    let paused = status.and_then(|status| condition::find(&status.conditions, conditions::PAUSED));
    match (act, paused.is_some_and(condition::Condition::is_true)) {
        (Act::Pause, true) => Err("VMI is already paused"),
        (Act::Resume, false) => Err("VMI is not paused"),
        _ => Ok(()),
    }
}
