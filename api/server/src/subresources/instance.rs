//! Pausing, unpausing and resetting an instance: judged by its phase and its `Paused` condition, then done by who runs it.
//!
//! The condition follows by itself: it says what the machine does, not what was asked.

use axum::extract::{Path, State};
use http::StatusCode;
use rvm_types::names::conditions;
use rvm_types::{Phase, VirtualMachineInstance};

use super::answer::{Kind, Refused};
use super::options::Options;
use super::{Machine, NOT_RUNNING, Subresources, holds};
use crate::power::Act;

/// `PUT …/pause`
pub(super) async fn pause(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
    options: Options,
) -> Result<StatusCode, Refused> {
    server.instance(machine, Act::Pause, &options).await
}

/// `PUT …/unpause`
pub(super) async fn unpause(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
    options: Options,
) -> Result<StatusCode, Refused> {
    server.instance(machine, Act::Resume, &options).await
}

/// `PUT …/reset`
pub(super) async fn reset(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
    options: Options,
) -> Result<StatusCode, Refused> {
    server.instance(machine, Act::Reset, &options).await
}

// === impl Subresources ===

impl Subresources {
    async fn instance(
        &self,
        (namespace, name): Machine,
        act: Act,
        options: &Options,
    ) -> Result<StatusCode, Refused> {
        let vmi = self.vmi(&namespace, &name).await?;
        judge(&vmi, act).map_err(|why| Refused::conflict(Kind::Instance, &name, why))?;
        if !options.is_dry_run() {
            let acted = self.node.act(&vmi, act).await;
            acted.map_err(|why| Refused::unreachable(&why))?;
        }
        Ok(StatusCode::OK)
    }
}

fn judge(vmi: &VirtualMachineInstance, act: Act) -> Result<(), &'static str> {
    if vmi.phase() != Some(&Phase::Running) {
        return Err(NOT_RUNNING);
    }
    match (act, holds(vmi, conditions::PAUSED)) {
        (Act::Pause, true) => Err("VMI is already paused"),
        (Act::Resume, false) => Err("VMI is not paused"),
        _ => Ok(()),
    }
}
