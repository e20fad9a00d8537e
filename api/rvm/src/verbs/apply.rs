//! `rvm apply`: objects be as the manifest says, one by one; with `--wait`, until they run.

use anyhow::{Context, Result, bail};
use rvm_proto::v1::ApplyRequest;
use rvm_proto::v1::apply_response::Outcome;
use rvm_types::condition::find;
use rvm_types::names::conditions::SYNCHRONIZED;
use rvm_types::{Phase, VirtualMachineInstance};
use tokio::time::timeout;

use super::{Changes, KIND, metadata, parse, read_manifests};
use crate::args::Apply;
use crate::connect::Client;
use crate::screen::{progress, say};

pub async fn run(mut client: Client, namespace: &str, args: &Apply) -> Result<()> {
    let mut applied = Vec::new();
    for object in read_manifests(&args.files)? {
        let request = ApplyRequest {
            manifest: serde_json::to_vec(&object)?.into(),
            namespace: namespace.to_owned(),
        };
        let response = client.apply(request).await?.into_inner();
        let outcome = match response.outcome() {
            Outcome::Created => "created",
            Outcome::Configured => "configured",
            Outcome::Unchanged => "unchanged",
            Outcome::Unspecified => "applied",
        };
        say(&format!("{KIND}/{} {outcome}", metadata(&object, "name")))?;
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
    let (mut said, mut explained) = (None, String::new());
    while let Some(vmi) = changes.next().await? {
        let phase = vmi.phase().cloned();
        if phase != said {
            progress(&format!(
                "{name}: {}",
                phase.as_ref().map_or("Pending", Phase::as_str)
            ));
        }
        // How far a pull is, or what keeps it from starting; why it failed is said at the end.
        let why = because(&vmi);
        if why != explained && phase != Some(Phase::Failed) {
            explained = why;
            if !explained.is_empty() {
                progress(&format!("{name}{explained}"));
            }
        }
        match &phase {
            Some(Phase::Running | Phase::Succeeded) => return Ok(()),
            Some(Phase::Failed) => bail!("{name} has failed{}", because(&vmi)),
            _ => said = phase,
        }
    }
    bail!("{name} was deleted meanwhile")
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
