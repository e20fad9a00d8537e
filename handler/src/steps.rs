//! Does what was planned: the only caller of images, processes and the API's writes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use rvm_server::observe::traces;
use rvm_types::names::reasons;
use rvm_types::{Claim, Phase, VirtualMachineInstance};
use rvmm_spec::AcceleratorChoice;
use serde_json::Value;
use tokio::sync::watch;
use tracing::{Instrument, field};

use crate::agent::{Agents, Line};
use crate::events::Recorder;
use crate::images::{ImageError, Images};
use crate::launch::{Launcher, PodError};
use crate::metrics::Transitions;
use crate::networks::client::{NetworkError, Networks};
use crate::networks::enforce::{EnforceError, Policies};
use crate::node;
use crate::plan::{self, Berth, Me, POLL, SETTLE, Seen, Step};
use crate::plugging::Plugs;
use crate::process::adopt::ObserveError;
use crate::process::children::Children;
use crate::process::spawn::SpawnError;
use crate::process::watch::Watch;
use crate::process::{Machines, stop};
use crate::pulling::Pulls;
use crate::retries::Retries;
use crate::status::Report;
use crate::vm::{Machine, VmId};
use crate::volumes::claims::{Claims, Fit};
use crate::volumes::host_disk::Allowed;

/// Everything that steps act on.
pub struct Effects {
    /// The cluster.
    pub client: Client,
    /// This node, as of its last heartbeat.
    pub me: watch::Receiver<Me>,
    /// The machines here.
    pub machines: Arc<Machines>,
    /// The images here.
    pub images: Arc<Images>,
    /// The networks here.
    pub networks: Arc<Networks>,
    /// What machines' networks are kept to, where no network plugin does that.
    pub policies: Option<Arc<Policies>>,
    /// Where host disks may lie.
    pub host_disks: Arc<Allowed>,
    /// What guests here said.
    pub agents: Agents,
    /// Where claims' disks lie.
    pub claims: Arc<Claims>,
    /// How machines get their processes.
    pub launcher: Arc<dyn Launcher>,
    /// What wakes us when a machine changes.
    pub watch: Watch,
    /// Where events go.
    pub events: Recorder,
    /// Which backend machines may use.
    pub accelerator: AcceleratorChoice,
    /// The rvmms that were started from here. Lost with us, as their exit statuses are.
    pub children: Children,
    /// Images that are being pulled for VMIs.
    pub pulls: Pulls,
    /// VMIs that could not be prepared. Lost with us, which only means that they are tried at once.
    pub retries: Retries,
    /// Disks that were to come or to go.
    pub plugs: Plugs,
    /// How long VMIs take, for metrics.
    pub transitions: Transitions,
}

/// What came of a step.
#[derive(Debug)]
pub enum Outcome {
    /// Done; the next may follow.
    Done,
    /// Written; the object is this now.
    Wrote(Box<VirtualMachineInstance>),
    /// The object was not what we thought: somebody else wrote first, or it is gone.
    Outrun,
    /// Nothing more to do before this much time.
    Wait(Duration),
}

/// A step could not be done; it will be tried again.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The cluster.
    #[error("the cluster's API does not do what was asked")]
    Api(#[from] kube::Error),
    /// What is here.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The machine does not start.
    #[error("the machine cannot be started")]
    Start(#[from] SpawnError),
    /// The machine cannot be handed to its pod.
    #[error("the machine cannot be handed to its pod")]
    Pod(#[from] PodError),
    /// Its network is not there, or stays.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// What its network is to be kept to.
    #[error(transparent)]
    Policy(#[from] EnforceError),
    /// The machine does not end.
    #[error("the machine cannot be ended")]
    Stop(#[from] stop::StopError),
    /// Its files stay.
    #[error("the machine's files cannot be removed")]
    Remove(#[source] std::io::Error),
    /// The image cache.
    #[error(transparent)]
    Sweep(ImageError),
    /// Only when we end.
    #[error("interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

// === impl StepError ===

impl StepError {
    /// What its VMI's owner should know of it, where it may last: one word. Trouble with the API would not get through, and what
    /// is only late passes.
    fn lasting(&self) -> Option<&'static str> {
        match self {
            Self::Observe(_) => Some(reasons::SYNC_FAILED),
            Self::Start(SpawnError::Already) | Self::Api(_) | Self::Sweep(_) | Self::Interrupted(_) => None,
            Self::Start(_) | Self::Pod(_) | Self::Network(_) | Self::Policy(_) => {
                Some(reasons::FAILED_CREATE)
            }
            Self::Stop(_) | Self::Remove(_) => Some(reasons::FAILED_DELETE),
        }
    }
}

// === impl Effects ===

impl Effects {
    /// Looks at what a plan for this VMI needs to know.
    ///
    /// # Errors
    /// [`StepError::Observe`], or the API's where another node's heartbeat is asked for.
    pub async fn see(&self, id: &VmId, vmi: &VirtualMachineInstance) -> Result<Seen, StepError> {
        let claim = Claim::on(vmi);
        let mine = claim.is_some_and(|claim| self.me.borrow().made(claim));
        let owner_heartbeat = match claim {
            Some(owner) if !mine && vmi.phase() == Some(&Phase::Scheduling) => {
                node::last_beat(&self.client, owner).await?
            }
            _ => None,
        };
        let (mut machine, mut stop_requested) = self.observe(id).await?;
        // One that ended before it held its run directory left no more than was laid out for it.
        if matches!(machine, Ok(Machine::Lost | Machine::Prepared)) && self.children.settled(id).await {
            (machine, stop_requested) = self.observe(id).await?;
        }
        let machine = match machine {
            // What was made for another node is another's, and so is the VMI.
            Err(ObserveError::NotOurs(..)) if !mine => Machine::Absent,
            machine => machine?,
        };
        let mut facts = None;
        if let Machine::Alive(info) = &machine {
            let socket = self.machines.run_dir(id).control_socket();
            self.watch.machine(id, socket.clone());
            self.machines.bound_log(id);
            let line = Line {
                socket,
                client: self.client.clone(),
                watch: self.watch.clone(),
            };
            facts = self.agents.of(id, vmi, info, line);
            self.launcher.tend(self, id);
        }
        Ok(Seen {
            machine,
            stop_requested,
            owner_heartbeat,
            retry_at: self.retries.at(id),
            network: self.networks.of(id)?,
            facts,
            attempts: self.plugs.of(id),
            claims: self.fit(id, vmi, mine).await,
            berth: if mine {
                Berth::Here
            } else {
                self.launcher.berth(self, id, vmi).await?
            },
        })
    }

    /// Whether a VMI's disks are here, where it may be ours to take.
    async fn fit(&self, id: &VmId, vmi: &VirtualMachineInstance, mine: bool) -> Fit {
        let is_open = match vmi.phase() {
            Some(Phase::Pending) => true,
            Some(Phase::Scheduling) => !mine,
            _ => false,
        };
        let me = self.me.borrow().clone();
        if is_open {
            self.claims.fit(&self.client, id, vmi, &me).await
        } else {
            Fit::Here
        }
    }

    /// A machine as it is on the disk, and whether its end was asked for.
    async fn observe(&self, id: &VmId) -> Result<(Result<Machine, ObserveError>, bool), StepError> {
        let (machines, vm) = (Arc::clone(&self.machines), id.clone());
        let look = move || (machines.observe(&vm), machines.stop_requested(&vm));
        Ok(tokio::task::spawn_blocking(look).await?)
    }

    /// Does one step.
    ///
    /// # Errors
    /// Any [`StepError`].
    pub async fn perform(
        &self,
        id: &VmId,
        vmi: &VirtualMachineInstance,
        step: Step,
    ) -> Result<Outcome, StepError> {
        if let Step::Wait(time) = step {
            return Ok(Outcome::Wait(time));
        }
        let span =
            tracing::info_span!("step", otel.name = name(&step), otel.status_code = field::Empty, vm = %id);
        traces::of_machine(&span, &id.uid);
        let done = self.act(id, vmi, step).instrument(span.clone()).await;
        if done.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        done
    }

    async fn act(&self, id: &VmId, vmi: &VirtualMachineInstance, step: Step) -> Result<Outcome, StepError> {
        match step {
            Step::Claim | Step::Reclaim | Step::HandOver | Step::Report(_) | Step::Release => {
                self.write(id, vmi, &step).await
            }
            Step::Prepare => self.prepare(id, vmi).await,
            Step::Start => self.launcher.start(self, id, vmi).await,
            Step::Announce(happening) => {
                self.events.record(vmi, &happening);
                Ok(Outcome::Done)
            }
            Step::Plug(volume) => self.plug(id, vmi, &volume).await.map(|()| Outcome::Done),
            Step::Unplug(device) => self.unplug(id, &device).await.map(|()| Outcome::Done),
            Step::Stop => {
                tracing::info!(vm = %id, uid = id.uid, "ending the machine");
                let (machines, vm) = (Arc::clone(&self.machines), id.clone());
                let grace = vmi.grace_period();
                let stopped = tokio::task::spawn_blocking(move || machines.stop(&vm, grace)).await??;
                Ok(Outcome::Wait(match stopped {
                    stop::Stopped::Gone => POLL,
                    // Its end wakes us, too.
                    stop::Stopped::Leaving => SETTLE,
                }))
            }
            Step::GiveUp => {
                tracing::warn!(vm = %id, uid = id.uid, "rvmm does not come up, it is killed");
                let (machines, vm) = (Arc::clone(&self.machines), id.clone());
                tokio::task::spawn_blocking(move || machines.give_up(&vm, plan::LAUNCH_LIMIT)).await??;
                Ok(Outcome::Done)
            }
            Step::RemoveRunDir => {
                self.pulls.forget(id);
                self.launcher.forget(id);
                let (machines, networks) = (Arc::clone(&self.machines), Arc::clone(&self.networks));
                let vm = id.clone();
                let remove = move || {
                    machines.remove(&vm).map_err(StepError::Remove)?;
                    Ok::<_, StepError>(networks.detach(&vm)?)
                };
                tokio::task::spawn_blocking(remove).await??;
                Ok(Outcome::Done)
            }
            Step::Wait(time) => Ok(Outcome::Wait(time)),
        }
    }

    /// Tells in a VMI's status what keeps us from doing what should be done. Says it once, however often it is tried.
    pub async fn tell(&self, id: &VmId, vmi: &VirtualMachineInstance, error: &StepError) {
        let (Some(reason), Some(claim)) = (error.lasting(), Claim::on(vmi)) else {
            return;
        };
        if !self.me.borrow().made(claim) {
            return;
        }
        let message = chain(error);
        let report = Step::Report(Report::OutOfSync { reason, message });
        if let Err(error) = self.write(id, vmi, &report).await {
            tracing::warn!(vm = %id, uid = id.uid, error = chain(&error), "its status cannot be written");
        }
    }

    /// Writes what a step says. The object may be another's by now.
    pub(crate) async fn write(
        &self,
        id: &VmId,
        vmi: &VirtualMachineInstance,
        step: &Step,
    ) -> Result<Outcome, StepError> {
        let me = self.me.borrow().clone();
        let Some((patch, events)) = plan::write(step, vmi, &me, Timestamp::now()) else {
            return Ok(Outcome::Done);
        };
        match self.patch(id, &patch).await {
            Ok(newer) => {
                let phase = newer.phase().map(Phase::as_str);
                tracing::info!(vm = %id, uid = id.uid, phase, "{}", told(step));
                self.transitions.saw(vmi, &newer);
                events.iter().for_each(|event| self.events.record(&newer, event));
                Ok(Outcome::Wrote(Box::new(newer)))
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                tracing::debug!(vm = %id, uid = id.uid, reason = status.reason, "somebody else wrote first");
                Ok(Outcome::Outrun)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn patch(&self, id: &VmId, patch: &Value) -> kube::Result<VirtualMachineInstance> {
        let api: Api<VirtualMachineInstance> = Api::namespaced(self.client.clone(), &id.namespace);
        api.patch(&id.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
    }
}

/// For the log: what a write was for.
fn told(step: &Step) -> &'static str {
    match step {
        Step::Claim => "claimed",
        Step::Reclaim => "claimed again",
        Step::HandOver => "handed over",
        Step::Release => "released",
        Step::Report(Report::Accepted) => "accepted",
        Step::Report(Report::Refused(_)) => "refused",
        Step::Report(Report::OutOfSync { .. }) => "out of sync",
        Step::Report(Report::Orphaned) => "its handler is gone",
        Step::Report(Report::Running(..)) => "running",
        Step::Report(Report::Over(_)) => "over",
        _ => "done",
    }
}

/// An error with all that is behind it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// A step's name in traces.
fn name(step: &Step) -> &'static str {
    match step {
        Step::Claim => "claim",
        Step::HandOver => "hand over",
        Step::Reclaim => "reclaim",
        Step::Report(_) => "report",
        Step::Release => "release",
        Step::Prepare => "prepare",
        Step::Start => "start",
        Step::Announce(_) => "announce",
        Step::Stop => "stop",
        Step::GiveUp => "give up",
        Step::RemoveRunDir => "remove",
        Step::Plug(_) => "plug",
        Step::Unplug(_) => "unplug",
        Step::Wait(_) => "wait",
    }
}
