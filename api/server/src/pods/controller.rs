//! The loop, as kube-rs wires it: what wakes it, and the round of seeing, planning and doing. Takes no decisions.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use rvm_types::VirtualMachineInstance;
use rvm_types::names::{events, labels, reasons};

use super::plan::{Seen, Step, plan};
use super::render::Launcher;
use super::status;
use super::steps::{Effects, StepError};
use crate::story::Story;

/// Rounds of one reconciliation; a VMI that needs more gets another one.
const MAX_ROUNDS: usize = 8;
/// VMIs that are worked on at once.
const CONCURRENCY: u16 = 8;
/// Pause after an error.
const RETRY: Duration = Duration::from_secs(5);

/// Follows the VMIs of the cluster until `shutdown` is done; what is begun then is finished.
pub async fn run(
    client: Client,
    launcher: Launcher,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let vmis: Api<VirtualMachineInstance> = Api::all(client.clone());
    let pods: Api<Pod> = Api::all(client.clone());
    let ours = watcher::Config::default().labels(&format!("{}=virt-launcher", labels::APP));
    let story = Story::new(&client);
    let effects = Arc::new(Effects {
        client,
        story,
        launcher,
    });
    Controller::new(vmis, watcher::Config::default())
        .owns(pods, ours)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown)
        .run(reconcile, |vmi, error, _| on_error(&vmi, error), effects)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "a reconciliation ended in an error");
            }
        })
        .await;
}

async fn reconcile(vmi: Arc<VirtualMachineInstance>, effects: Arc<Effects>) -> Result<Action, StepError> {
    for _ in 0..MAX_ROUNDS {
        let Some((vmi, pods)) = effects.see(&vmi).await? else {
            return Ok(Action::await_change());
        };
        let seen = Seen {
            vmi: &vmi,
            pods: &pods,
            now: Timestamp::now(),
        };
        let steps = plan(&seen);
        if steps.is_empty() {
            return Ok(Action::await_change());
        }
        for step in steps {
            if let Step::Wait(time) = step {
                return Ok(Action::requeue(time));
            }
            match effects.perform(&vmi, step).await {
                Err(StepError::Refused(why)) => {
                    let told = status::refused(&vmi, (events::FAILED_CREATE, &why), Timestamp::now());
                    effects.report(&vmi, &told).await?;
                    return Err(StepError::Refused(why));
                }
                Err(error @ StepError::NoClaim(_)) => {
                    let why = error.to_string();
                    let told = status::refused(&vmi, (reasons::FAILED_PVC_NOT_FOUND, &why), Timestamp::now());
                    effects.report(&vmi, &told).await?;
                    return Err(error);
                }
                done => done?,
            }
        }
    }
    Ok(Action::requeue(RETRY))
}

fn on_error(vmi: &VirtualMachineInstance, error: &StepError) -> Action {
    tracing::warn!(vm = vmi.name_any(), error = %error, "will be tried again");
    Action::requeue(RETRY)
}
