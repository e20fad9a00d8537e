//! Manifests by the Kubernetes API: server-side apply, so that the server compares, and who owns which field is kept.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::Story;
use crate::args::{Apply, Global};
use crate::cluster::{Cluster, Resource};
use crate::screen::say;
use crate::verbs::{in_namespace_of, metadata, own_name, resource_of};

/// Between two looks at a machine.
const AGAIN: Duration = Duration::from_millis(500);

pub(super) async fn run(cluster: &Cluster, global: &Global, objects: &[Value], args: &Apply) -> Result<()> {
    let mut applied = Vec::new();
    for object in objects {
        let resource = resource_of(object).with_context(|| {
            format!(
                "{} is not a kind of machine; kubectl applies others",
                object["kind"]
            )
        })?;
        if args.wait && resource != Resource::Instance {
            bail!("--wait is for VirtualMachineInstances");
        }
        let name = own_name(object)?;
        let path = in_namespace_of(cluster, global, object)?.object(resource, name);
        applied.push((resource, name, path, object));
    }
    for (resource, name, path, object) in &applied {
        let before = cluster.find(path).await?;
        let after = cluster.apply(path, object).await?;
        let outcome = match before {
            None => "created",
            Some(before) if metadata(&before, "resourceVersion") == metadata(&after, "resourceVersion") => {
                "unchanged"
            }
            Some(_) => "configured",
        };
        say(&format!("{}.kubevirt.io/{name} {outcome}", resource.singular()))?;
    }
    if args.wait {
        let patience = args.patience.timeout;
        for (_, name, path, _) in &applied {
            let running = timeout(patience, until_it_runs(cluster, name, path)).await;
            running.with_context(|| format!("{name} does not run after {}s", patience.as_secs()))??;
        }
    }
    Ok(())
}

/// Looks until the machine runs, or has run; says on the way where it is.
async fn until_it_runs(cluster: &Cluster, name: &str, path: &str) -> Result<()> {
    let mut story = Story::default();
    while let Some(object) = cluster.find(path).await? {
        let vmi =
            serde_json::from_value(object).context("the server sent an object that cannot be understood")?;
        if story.has_come_to_run(name, &vmi)? {
            return Ok(());
        }
        sleep(AGAIN).await;
    }
    bail!("{name} was deleted meanwhile")
}
