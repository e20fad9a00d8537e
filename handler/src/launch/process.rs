//! Machines as processes of this handler, each in a network namespace of its own.

use std::sync::Arc;

use rvm_types::VirtualMachineInstance;
use rvm_types::names::events;

use super::{Launcher, NoPod};
use crate::events::Happening;
use crate::plan::{Berth, POLL};
use crate::steps::{Effects, Outcome, StepError, chain};
use crate::vm::VmId;
use crate::volumes::brought::PodFolder;

/// Machines as processes of ours.
#[derive(Debug, Clone, Copy, Default)]
pub struct Processes;

#[tonic::async_trait]
impl Launcher for Processes {
    async fn berth(&self, _: &Effects, _: &VmId, _: &VirtualMachineInstance) -> Result<Berth, StepError> {
        Ok(Berth::Anywhere)
    }

    async fn folder(&self, _: &Effects, _: &VmId) -> Result<Result<Option<PodFolder>, NoPod>, StepError> {
        Ok(Ok(None))
    }

    async fn start(
        &self,
        effects: &Effects,
        id: &VmId,
        vmi: &VirtualMachineInstance,
    ) -> Result<Outcome, StepError> {
        let (machines, networks) = (Arc::clone(&effects.machines), Arc::clone(&effects.networks));
        let vm = id.clone();
        let place = tokio::task::spawn_blocking(move || networks.attach(&vm)).await??;
        if let (Some(policies), Some(_)) = (&effects.policies, &place) {
            policies.hold(id).await?;
        }
        let vm = id.clone();
        let mut child = tokio::task::spawn_blocking(move || machines.start(&vm, place)).await??;
        tracing::info!(vm = %id, uid = id.uid, pid = child.id(), "rvmm started");
        effects.events.record(
            vmi,
            &Happening::normal(events::CREATED, "VirtualMachineInstance defined."),
        );
        let (machines, networks) = (Arc::clone(&effects.machines), Arc::clone(&effects.networks));
        let (watch, vm) = (effects.watch.clone(), id.clone());
        let noted = effects.children.add(id);
        // While we live we are its parent and have to take its status; when we are gone, init is.
        tokio::spawn(async move {
            let status = child.wait().await;
            tracing::info!(vm = %vm, uid = vm.uid, status = ?status.as_ref().ok(), "rvmm ended");
            let settled = vm.clone();
            let settle = move || {
                machines.settle(&settled, status);
                if let Err(error) = networks.detach(&settled) {
                    tracing::warn!(vm = %settled, error = chain(&error), "its network stays for now");
                }
            };
            tokio::task::spawn_blocking(settle).await.ok();
            drop(noted);
            watch.wake(&vm);
        });
        Ok(Outcome::Wait(POLL))
    }

    fn tend(&self, _: &Effects, _: &VmId) {}

    fn forget(&self, _: &VmId) {}
}
