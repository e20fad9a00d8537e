//! `rvm apply`: objects be as the manifest says, one by one; with `--wait`, until they run.
//!
//! VirtualMachineInstances go by rvm.v1, as `kubectl apply` has it; all kinds by a kubeconfig, as `kubectl apply --server-side` has it.

mod kubernetes;

use anyhow::{Context, Result, bail};
use rvm_proto::v1::ApplyRequest;
use rvm_proto::v1::apply_response::Outcome;
use rvm_types::VirtualMachineInstance;
use serde_json::Value;
use tokio::time::timeout;

use super::story::Story;
use super::{Changes, KIND, metadata, parse, read_manifests, resource_of};
use crate::args::{Apply, Global};
use crate::cluster::Resource;
use crate::connect::{Client, Door};
use crate::screen::say;
use crate::signals::unless_interrupted;

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
            let running = timeout(
                args.patience.timeout,
                unless_interrupted(until_it_runs(&mut client, vmi)),
            )
            .await;
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
    let mut story = Story::new()?;
    while let Some(vmi) = changes.next().await? {
        if story.has_come_to_run(name, &vmi)? {
            return Ok(());
        }
    }
    bail!("{name} was deleted meanwhile")
}
