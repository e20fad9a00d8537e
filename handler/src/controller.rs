//! The loop, as kube-rs wires it: what wakes it, and the round of seeing, planning and doing. Takes no decisions.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use kube::api::Api;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use rvm_types::{Claim, VirtualMachineInstance};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{UnboundedReceiverStream, WatchStream};

use jiff::Timestamp;

use crate::plan::{SETTLE, Step, plan};
use crate::steps::{Effects, Outcome, StepError, chain};
use crate::vm::VmId;

/// Rounds of one reconciliation: a VMI's whole life has fewer writes.
const MAX_ROUNDS: usize = 16;

/// VMIs that are worked on at once. Each may unpack an image.
const CONCURRENCY: u16 = 16;

/// How often a living machine is looked at though nothing woke us.
const RECHECK: Duration = Duration::from_secs(60);

/// Pause after an error.
const RETRY: Duration = Duration::from_secs(5);

/// How often run directories without a VMI are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// Makes the node match its VMIs until `shutdown` is done; what is begun then is finished.
pub async fn run(
    effects: Arc<Effects>,
    wakes: mpsc::UnboundedReceiver<VmId>,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let vmis: Api<VirtualMachineInstance> = Api::all(effects.client.clone());
    let config = Config::default().concurrency(CONCURRENCY);
    let controller = Controller::new(vmis, watcher::Config::default()).with_config(config);
    let sweeping = tokio::spawn(sweep_for_ever(Arc::clone(&effects), controller.store()));
    let wakes = UnboundedReceiverStream::new(wakes).map(|id| ObjectRef::new(&id.name).within(&id.namespace));
    let changes_of_node = WatchStream::from_changes(effects.me.clone()).map(|_| ());
    controller
        .reconcile_on(wakes)
        .reconcile_all_on(changes_of_node)
        .graceful_shutdown_on(shutdown)
        .run(reconcile, |vmi, error, _| on_error(&vmi, error), effects)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(error = chain(&error), "a reconciliation ended in an error");
            }
        })
        .await;
    sweeping.abort();
}

async fn reconcile(vmi: Arc<VirtualMachineInstance>, effects: Arc<Effects>) -> Result<Action, StepError> {
    let Some(id) = VmId::of(&vmi) else {
        return Ok(Action::await_change());
    };
    let mut vmi = VirtualMachineInstance::clone(&vmi);
    let done = work(&id, &mut vmi, &effects).await;
    if let Err(error) = &done {
        effects.tell(&id, &vmi, error).await;
    }
    done
}

/// Sees, plans and does until there is nothing to do now. `vmi` is the newest that is known of it.
async fn work(id: &VmId, vmi: &mut VirtualMachineInstance, effects: &Effects) -> Result<Action, StepError> {
    for _ in 0..MAX_ROUNDS {
        let seen = effects.see(id, vmi).await?;
        let me = effects.me.borrow().clone();
        let steps = plan(id, vmi, &seen, &me, Timestamp::now());
        if steps.is_empty() {
            let mine = Claim::on(vmi).is_some_and(|claim| me.made(claim));
            return Ok(if mine {
                Action::requeue(RECHECK)
            } else {
                Action::await_change()
            });
        }
        let mut waiting = None;
        for step in steps {
            let released = step == Step::Release;
            match effects.perform(id, vmi, step).await? {
                Outcome::Done => {}
                Outcome::Wrote(_) if released => return Ok(Action::await_change()),
                Outcome::Wrote(newer) => *vmi = *newer,
                Outcome::Outrun => return Ok(Action::requeue(SETTLE)),
                Outcome::Wait(time) => {
                    waiting = Some(time);
                    break;
                }
            }
        }
        if let Some(time) = waiting {
            return Ok(Action::requeue(time));
        }
    }
    Ok(Action::requeue(SETTLE))
}

fn on_error(vmi: &VirtualMachineInstance, error: &StepError) -> Action {
    let (name, uid) = (vmi.metadata.name.as_deref(), vmi.metadata.uid.as_deref());
    tracing::warn!(vm = name, uid, error = chain(error), "will be tried again");
    Action::requeue(RETRY)
}

async fn sweep_for_ever(effects: Arc<Effects>, store: Store<VirtualMachineInstance>) {
    // What the store does not know is asked for by name before anything is removed: before it is filled, that were all. It is asked
    // again and again since it wakes only the last of all who wait for it (kube-runtime's DelayedInit), and the controller does, too.
    while let Err(_not_yet) = tokio::time::timeout(SETTLE, store.wait_until_ready()).await {}
    loop {
        if let Err(error) = sweep(&effects, &store).await {
            tracing::warn!(error = chain(&error), "looking for machines without a VMI failed");
        }
        tokio::time::sleep(SWEEP).await;
    }
}

/// Ends machines and removes run directories and disks whose VMI is gone: deleted with its finalizer taken away by
/// force, or while nobody was here to see it. And what images left that no machine uses.
async fn sweep(effects: &Effects, store: &Store<VirtualMachineInstance>) -> Result<(), StepError> {
    let known: HashSet<String> = store
        .state()
        .iter()
        .filter_map(|vmi| vmi.metadata.uid.clone())
        .collect();
    effects.retries.retain(|uid| known.contains(uid));
    effects.plugs.retain(|uid| known.contains(uid));
    effects.pulls.retain(|uid| known.contains(uid));
    effects.agents.retain(|uid| known.contains(uid));
    let machines = Arc::clone(&effects.machines);
    let here = tokio::task::spawn_blocking(move || machines.all()).await??;
    for id in here.into_iter().filter(|id| !known.contains(&id.uid)) {
        if let Err(error) = remove_orphan(effects, &id).await {
            tracing::warn!(vm = %id, uid = id.uid, error = chain(&error), "its VMI is gone and its machine is not");
        }
    }
    let (machines, images) = (Arc::clone(&effects.machines), Arc::clone(&effects.images));
    let swept = tokio::task::spawn_blocking(move || {
        let specs = machines.specs()?;
        images.sweep(&specs, SystemTime::now()).map_err(StepError::Sweep)
    });
    swept.await?
}

async fn remove_orphan(effects: &Effects, id: &VmId) -> Result<(), StepError> {
    // Our view may be old; only the API itself can say that it is gone.
    let api: Api<VirtualMachineInstance> = Api::namespaced(effects.client.clone(), &id.namespace);
    let there = api.get_opt(&id.name).await?;
    if there.is_some_and(|vmi| vmi.metadata.uid.as_deref() == Some(&id.uid)) {
        return Ok(());
    }
    tracing::warn!(vm = %id, uid = id.uid, "its VMI is gone, so it is ended and removed");
    let (machines, id) = (Arc::clone(&effects.machines), id.clone());
    let removed = tokio::task::spawn_blocking(move || {
        machines.stop(&id, Duration::ZERO)?;
        machines.remove(&id).map_err(StepError::Remove)
    });
    removed.await?
}
