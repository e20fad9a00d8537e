//! Starting, stopping and restarting a VirtualMachine: judged by its run strategy, then written into its object.
//!
//! ```text
//!   what was asked + VM + instance ──judge──► a refusal in KubeVirt's words
//!                                        └──► another run strategy, or requests ──written──► the controller acts
//! ```
//!
//! What is written holds only for the VM that was judged: where somebody changed it meanwhile, it is read and judged again.

use std::time::Duration;

use axum::extract::{Path, State};
use http::StatusCode;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rvm_types::vm::{RunStrategy, StateChangeRequest};
use rvm_types::{Phase, VirtualMachine, VirtualMachineInstance};
use serde_json::{Value, json};

use super::answer::{Kind, Refused};
use super::options::Options;
use super::{Machine, Subresources};
use crate::reach::Unreachable;
use crate::vm::with_strategy;

/// How often a VM that others change at the same time is judged again.
const ATTEMPTS: usize = 5;

const NOT_RUNNING: &str = "VM is not running";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is to run, with its processors standing still if they are to.
    Start { paused: bool },
    /// It is to run no more, and has so many seconds.
    Stop { grace: Option<u64> },
    /// It is to run anew.
    Restart { grace: Option<u64> },
}

/// What is to be written.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    /// Another run strategy.
    Strategy(RunStrategy),
    /// Requests, in place of those that are there.
    Requests(Vec<StateChangeRequest>),
    /// Nothing: the instance is only to end sooner.
    Nothing,
}

/// `PUT …/start`
pub(super) async fn start(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
    options: Options,
) -> Result<StatusCode, Refused> {
    let paused = options.paused;
    accepted(&server, machine, Action::Start { paused }, &options).await
}

/// `PUT …/stop`
pub(super) async fn stop(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
    options: Options,
) -> Result<StatusCode, Refused> {
    let grace = options.stop_grace()?;
    accepted(&server, machine, Action::Stop { grace }, &options).await
}

/// `PUT …/restart`
pub(super) async fn restart(
    State(server): State<Subresources>,
    Path(machine): Path<Machine>,
    options: Options,
) -> Result<StatusCode, Refused> {
    let grace = options.restart_grace()?;
    accepted(&server, machine, Action::Restart { grace }, &options).await
}

async fn accepted(
    server: &Subresources,
    machine: Machine,
    action: Action,
    options: &Options,
) -> Result<StatusCode, Refused> {
    server.act(machine, action, options.is_dry_run()).await?;
    Ok(StatusCode::ACCEPTED)
}

// === impl Action ===

impl Action {
    /// The seconds that the instance is given to end, where that is said.
    fn grace(self) -> Option<u64> {
        match self {
            Self::Start { .. } => None,
            Self::Stop { grace } | Self::Restart { grace } => grace,
        }
    }
}

// === impl Subresources ===

impl Subresources {
    /// Judges and writes, and ends the instance within the grace that was given, if one was.
    pub(crate) async fn act(
        &self,
        (namespace, name): Machine,
        action: Action,
        dry_run: bool,
    ) -> Result<(), Refused> {
        let name = name.as_str();
        let vms: Api<VirtualMachine> = self.objects(&namespace, name, Kind::Machine)?;
        let vmis: Api<VirtualMachineInstance> = self.objects(&namespace, name, Kind::Instance)?;
        let params = PatchParams {
            dry_run,
            ..PatchParams::default()
        };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let (vm, vmi) = (vms.get(name).await?, vmis.get_opt(name).await?);
            let change = judge(action, &vm, vmi.as_ref())
                .map_err(|why| Refused::conflict(Kind::Machine, name, why))?;
            let written = match &change {
                Change::Strategy(strategy) => {
                    let patch = with_strategy(&vm, strategy);
                    vms.patch(name, &params, &Patch::Merge(patch)).await
                }
                Change::Requests(requests) => {
                    let patch = with_requests(&vm, requests);
                    vms.patch_status(name, &params, &Patch::Merge(patch)).await
                }
                Change::Nothing => Ok(vm),
            };
            match written {
                Ok(_) => {
                    let vmi = live(vmi.as_ref()).filter(|_| !dry_run);
                    if let (Some(grace), Some(vmi)) = (action.grace(), vmi) {
                        self.hurry(vmi, grace).await?;
                    }
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == StatusCode::CONFLICT => {
                    last = Some(kube::Error::Api(status).into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.unwrap_or_else(|| Refused::internal("nothing was tried")))
    }

    async fn hurry(&self, vmi: &VirtualMachineInstance, grace: u64) -> Result<(), Refused> {
        match self.node.stop(vmi, Some(Duration::from_secs(grace))).await {
            // What was written ends it, whatever becomes of it until then.
            Ok(()) | Err(Unreachable::NotRunning) => Ok(()),
            Err(why) => Err(Refused::unreachable(&why)),
        }
    }
}

fn with_requests(vm: &VirtualMachine, requests: &[StateChangeRequest]) -> Value {
    json!({
        "metadata": {"resourceVersion": vm.metadata.resource_version},
        "status": {"stateChangeRequests": requests},
    })
}

// === judging ===

/// An instance that has not ended.
fn live(vmi: Option<&VirtualMachineInstance>) -> Option<&VirtualMachineInstance> {
    vmi.filter(|vmi| !vmi.phase().is_some_and(Phase::is_final))
}

/// What is to be written, or why nothing is.
fn judge(
    action: Action,
    vm: &VirtualMachine,
    vmi: Option<&VirtualMachineInstance>,
) -> Result<Change, String> {
    match action {
        Action::Start { paused } => judge_start(vm, vmi, paused),
        Action::Stop { grace } => judge_stop(vm, vmi, grace),
        Action::Restart { .. } => judge_restart(vm, vmi),
    }
}

fn judge_start(
    vm: &VirtualMachine,
    vmi: Option<&VirtualMachineInstance>,
    paused: bool,
) -> Result<Change, String> {
    if live(vmi).is_some_and(|vmi| vmi.phase().is_some()) {
        return Err("VM is already running".to_owned());
    }
    let phase = vmi.and_then(VirtualMachineInstance::phase);
    let mut start = StateChangeRequest::start();
    if paused {
        let key = StateChangeRequest::PAUSED.to_owned();
        start.data.insert(key, "true".to_owned());
    }
    match (vm.run_strategy(), phase) {
        (RunStrategy::Halted, _) if !paused => Ok(Change::Strategy(RunStrategy::Always)),
        (strategy @ RunStrategy::RerunOnFailure, Some(Phase::Failed)) => Err(format!(
            "{} does not support starting VM from failed state",
            strategy.as_str()
        )),
        (RunStrategy::Manual | RunStrategy::RerunOnFailure, Some(phase)) if phase.is_final() => {
            let ended = vmi
                .and_then(|vmi| vmi.metadata.uid.as_deref())
                .unwrap_or_default();
            requests(vm, vec![StateChangeRequest::stop(ended), start])
        }
        (RunStrategy::Halted | RunStrategy::Manual | RunStrategy::RerunOnFailure, _) => {
            requests(vm, vec![start])
        }
        (strategy, _) => Err(format!(
            "{} does not support manual start requests",
            strategy.as_str()
        )),
    }
}

fn judge_stop(
    vm: &VirtualMachine,
    vmi: Option<&VirtualMachineInstance>,
    grace: Option<u64>,
) -> Result<Change, String> {
    match (vm.run_strategy(), live(vmi)) {
        (RunStrategy::Always | RunStrategy::Once, _) => Ok(Change::Strategy(RunStrategy::Halted)),
        (_, None) => Err(NOT_RUNNING.to_owned()),
        (strategy @ RunStrategy::Halted, Some(vmi)) => {
            let sooner = grace.is_some_and(|grace| grace < vmi.grace_period().as_secs());
            if !sooner {
                let only = "only supports manual stop requests with a shorter graceperiod";
                return Err(format!("{} {only}", strategy.as_str()));
            }
            Ok(Change::Nothing)
        }
        (RunStrategy::Manual | RunStrategy::RerunOnFailure, Some(vmi)) => {
            let uid = vmi.metadata.uid.as_deref().unwrap_or_default();
            // A stop stands in place of whatever was asked for before.
            Ok(Change::Requests(vec![StateChangeRequest::stop(uid)]))
        }
        (strategy, _) => Err(format!(
            "{} does not support manual stop requests",
            strategy.as_str()
        )),
    }
}

fn judge_restart(vm: &VirtualMachine, vmi: Option<&VirtualMachineInstance>) -> Result<Change, String> {
    match (vm.run_strategy(), live(vmi)) {
        (strategy @ (RunStrategy::Halted | RunStrategy::Once), _) => Err(format!(
            "{} does not support manual restart requests",
            strategy.as_str()
        )),
        (_, None) => Err(NOT_RUNNING.to_owned()),
        (_, Some(vmi)) => {
            let uid = vmi.metadata.uid.as_deref().unwrap_or_default();
            requests(
                vm,
                vec![StateChangeRequest::stop(uid), StateChangeRequest::start()],
            )
        }
    }
}

/// These requests, where none are under way.
fn requests(vm: &VirtualMachine, wanted: Vec<StateChangeRequest>) -> Result<Change, String> {
    let status = vm.status.as_ref();
    if status.is_some_and(|status| !status.state_change_requests.is_empty()) {
        return Err("unable to complete request: stop/start already underway".to_owned());
    }
    Ok(Change::Requests(wanted))
}

#[cfg(test)]
mod tests;
