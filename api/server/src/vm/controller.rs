//! The loop, as kube-rs wires it: what wakes it, and the round of seeing, planning and doing. Takes no decisions.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::Client;
use kube::api::Api;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::watcher;
use rvm_types::{VirtualMachine, VirtualMachineInstance};

use super::plan::{Seen, Step, plan};
use super::steps::{Effects, Outcome};
use crate::story::Story;

/// Rounds of one reconciliation: the way from one instance to the next has fewer.
const MAX_ROUNDS: usize = 16;
/// VMs that are worked on at once.
const CONCURRENCY: u16 = 16;
/// Pause after somebody else wrote first, and after we have done much.
const SETTLE: Duration = Duration::from_millis(200);
/// Pause after an error.
const RETRY: Duration = Duration::from_secs(5);

/// Follows the VMs of the cluster until `shutdown` is done; what is begun then is finished.
pub async fn run(client: Client, shutdown: impl Future<Output = ()> + Send + Sync + 'static) {
    let vms: Api<VirtualMachine> = Api::all(client.clone());
    let vmis: Api<VirtualMachineInstance> = Api::all(client.clone());
    let story = Story::new(&client);
    let effects = Arc::new(Effects { client, story });
    Controller::new(vms, watcher::Config::default())
        .owns(vmis, watcher::Config::default())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(shutdown)
        .run(reconcile, |vm, error, _| on_error(&vm, error), effects)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "a reconciliation ended in an error");
            }
        })
        .await;
}

async fn reconcile(vm: Arc<VirtualMachine>, effects: Arc<Effects>) -> Result<Action, kube::Error> {
    let mut vm = VirtualMachine::clone(&vm);
    for _ in 0..MAX_ROUNDS {
        let (vmi, made_from) = effects.see(&vm).await?;
        let seen = Seen {
            vm: &vm,
            vmi: vmi.as_ref(),
            made_from: made_from.as_ref(),
            now: Timestamp::now(),
        };
        let steps = plan(&seen);
        let wait = match steps.as_slice() {
            [] => Some(Action::await_change()),
            [Step::Wait(time)] => Some(Action::requeue(*time)),
            _ => None,
        };
        if let Some(wait) = wait {
            return Ok(wait);
        }
        for step in steps {
            let (creates, leaves) = (matches!(step, Step::Create { .. }), step == Step::LetGo);
            match effects.perform(&vm, vmi.as_ref(), step).await {
                Ok(Outcome::Done) => {}
                Ok(Outcome::Wrote(_)) if leaves => return Ok(Action::await_change()),
                Ok(Outcome::Wrote(newer)) => vm = *newer,
                Ok(Outcome::Outrun) => return Ok(Action::requeue(SETTLE)),
                Err(error) => {
                    if creates {
                        effects.tell(&vm, &error).await;
                    }
                    return Err(error);
                }
            }
        }
    }
    Ok(Action::requeue(SETTLE))
}

fn on_error(vm: &VirtualMachine, error: &kube::Error) -> Action {
    tracing::warn!(vm = vm.metadata.name.as_deref(), %error, "will be tried again");
    Action::requeue(RETRY)
}
