//! The loop, as kube-rs wires it: what wakes it, and the round of seeing, planning and doing. Takes no decisions.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::Api;
use kube::core::SelectorExt;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use rvm_types::replica_set::VirtualMachineInstanceReplicaSetStatus;
use rvm_types::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet};

use super::plan::{self, Seen, Step, plan};
use super::steps::Effects;
use crate::story::Story;

/// Rounds of one reconciliation; a set that needs more gets another one.
const MAX_ROUNDS: usize = 8;
/// Sets that are worked on at once.
const CONCURRENCY: u16 = 4;
/// Changes of a set's instances within this time are looked at together: each look reads its whole namespace.
const GATHER: Duration = Duration::from_millis(200);
/// Pause after an error.
const RETRY: Duration = Duration::from_secs(5);

/// Follows the sets of the cluster until `shutdown` is done; what is begun then is finished.
pub async fn run(client: Client, shutdown: impl Future<Output = ()> + Send + Sync + 'static) {
    let sets: Api<VirtualMachineInstanceReplicaSet> = Api::all(client.clone());
    let vmis: Api<VirtualMachineInstance> = Api::all(client.clone());
    let story = Story::new(&client);
    let effects = Arc::new(Effects { client, story });
    let controller = Controller::new(sets, watcher::Config::default());
    let known = controller.store();
    controller
        .watches(vmis, watcher::Config::default(), move |vmi| {
            concerned(&known, &vmi)
        })
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(GATHER))
        .graceful_shutdown_on(shutdown)
        .run(reconcile, |set, error, _| on_error(&set, error), effects)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "a reconciliation ended in an error");
            }
        })
        .await;
}

/// The sets for which a change of this instance is news: its own, or all that would adopt it.
fn concerned(
    known: &Store<VirtualMachineInstanceReplicaSet>,
    vmi: &VirtualMachineInstance,
) -> Vec<ObjectRef<VirtualMachineInstanceReplicaSet>> {
    let controller = plan::controller(vmi);
    let (namespace, labels) = (vmi.namespace(), vmi.labels());
    let concerns = |set: &VirtualMachineInstanceReplicaSet| match controller {
        Some(owner) => set.metadata.uid.as_ref() == Some(&owner.uid),
        None => set.selector().is_ok_and(|selector| selector.matches(labels)),
    };
    let near = known
        .state()
        .into_iter()
        .filter(|set| set.namespace() == namespace);
    near.filter(|set| concerns(set))
        .map(|set| ObjectRef::from_obj(&*set))
        .collect()
}

async fn reconcile(
    set: Arc<VirtualMachineInstanceReplicaSet>,
    effects: Arc<Effects>,
) -> Result<Action, kube::Error> {
    for _ in 0..MAX_ROUNDS {
        let Some((set, vmis)) = effects.see(&set).await? else {
            return Ok(Action::await_change());
        };
        let seen = Seen {
            set: &set,
            vmis: &vmis,
            now: Timestamp::now(),
        };
        let steps = plan(&seen);
        match steps.as_slice() {
            [] => return Ok(Action::await_change()),
            [Step::Wait(time)] => return Ok(Action::requeue(*time)),
            _ => {}
        }
        let wanted = match steps.last() {
            Some(Step::Report(status)) => VirtualMachineInstanceReplicaSetStatus::clone(status),
            _ => set.status.clone().unwrap_or_default(),
        };
        for step in steps {
            effects.perform(&set, &wanted, step).await?;
        }
    }
    Ok(Action::requeue(GATHER))
}

fn on_error(set: &VirtualMachineInstanceReplicaSet, error: &kube::Error) -> Action {
    tracing::warn!(set = set.metadata.name.as_deref(), %error, "will be tried again");
    Action::requeue(RETRY)
}
