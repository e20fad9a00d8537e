//! `rvm apply`: objects be as the manifest says, one by one; with `--wait`, until they run.
//!
//! VirtualMachineInstances go by rvm.v1, as `kubectl apply` has it; all kinds by a kubeconfig, as `kubectl apply --server-side` has it.

mod kubernetes;

use anyhow::{Context, Result, bail};
use rvm_proto::v1::ApplyRequest;
use rvm_proto::v1::apply_response::Outcome;
use rvm_types::condition::find;
use rvm_types::names::conditions::SYNCHRONIZED;
use rvm_types::{Phase, VirtualMachineInstance};
use serde_json::Value;
use tokio::time::timeout;

use super::{Changes, KIND, metadata, parse, read_manifests, resource_of};
use crate::args::{Apply, Global};
use crate::cluster::Resource;
use crate::connect::{Client, Door};
use crate::screen::{progress, say};

pub async fn run(global: &Global, args: &Apply) -> Result<()> {
    let objects = read_manifests(&args.files)?;
    let kinds = objects.iter().filter_map(resource_of);
    match Door::find_for(global, Resource::beyond_rvm(kinds)).await? {
        Door::Rvm(client) => {
            let namespace = global.namespace.as_deref().unwrap_or_default();
            by_rvm(client, namespace, &objects, args).await
        }
        Door::Kubernetes(cluster) => kubernetes::run(&cluster, global, &objects, args).await,
    }
}

async fn by_rvm(mut client: Client, namespace: &str, objects: &[Value], args: &Apply) -> Result<()> {
    let mut applied = Vec::new();
    for object in objects {
        let request = ApplyRequest {
            manifest: serde_json::to_vec(object)?.into(),
            namespace: namespace.to_owned(),
        };
        let response = client.apply(request).await?.into_inner();
        let outcome = match response.outcome() {
            Outcome::Created => "created",
            Outcome::Configured => "configured",
            Outcome::Unchanged => "unchanged",
            Outcome::Unspecified => "applied",
        };
        say(&format!("{KIND}/{} {outcome}", metadata(object, "name")))?;
        applied.push(parse(&response.object)?);
    }
    if args.wait {
        for vmi in &applied {
            let name = vmi.metadata.name.as_deref().unwrap_or_default();
            let running = timeout(args.patience.timeout, until_it_runs(&mut client, vmi)).await;
            running.with_context(|| {
                format!("{name} does not run after {}s", args.patience.timeout.as_secs())
            })??;
        }
    }
    Ok(())
}

/// Waits until the machine runs, or has run; says on the way where it is.
async fn until_it_runs(client: &mut Client, vmi: &VirtualMachineInstance) -> Result<()> {
    let name = vmi.metadata.name.as_deref().unwrap_or_default();
    let namespace = vmi.metadata.namespace.as_deref().unwrap_or_default();
    let mut changes = Changes::of(client, namespace, name).await?;
    let mut story = Story::default();
    while let Some(vmi) = changes.next().await? {
        if story.has_come_to_run(name, &vmi)? {
            return Ok(());
        }
    }
    bail!("{name} was deleted meanwhile")
}

/// What was said of a machine on its way.
#[derive(Default)]
struct Story {
    said: Option<Phase>,
    explained: String,
}

impl Story {
    /// Says what is new, and whether the machine runs, or has run.
    fn has_come_to_run(&mut self, name: &str, vmi: &VirtualMachineInstance) -> Result<bool> {
        let phase = vmi.phase().cloned();
        if phase != self.said {
            progress(&format!(
                "{name}: {}",
                phase.as_ref().map_or("Pending", Phase::as_str)
            ));
        }
        // How far a pull is, or what keeps it from starting; why it failed is said at the end.
        let why = because(vmi);
        if why != self.explained && phase != Some(Phase::Failed) {
            self.explained = why;
            if !self.explained.is_empty() {
                progress(&format!("{name}{}", self.explained));
            }
        }
        match phase {
            Some(Phase::Running | Phase::Succeeded) => return Ok(true),
            Some(Phase::Failed) => bail!("{name} has failed{}", because(vmi)),
            phase => self.said = phase,
        }
        Ok(false)
    }
}

/// Why a machine has failed, in as many words as its status has.
fn because(vmi: &VirtualMachineInstance) -> String {
    let Some(status) = &vmi.status else {
        return String::new();
    };
    let message = find(&status.conditions, SYNCHRONIZED).filter(|condition| !condition.is_true());
    let why = message
        .and_then(|condition| condition.message.clone())
        .or_else(|| status.reason.clone());
    why.filter(|why| !why.is_empty())
        .map(|why| format!(": {why}"))
        .unwrap_or_default()
}
