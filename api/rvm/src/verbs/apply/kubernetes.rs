//! Manifests by the Kubernetes API: server-side apply, so that the server compares, and who owns which field is kept.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::time::timeout;

use crate::args::{Apply, Global};
use crate::cluster::{Cluster, Resource};
use crate::screen::say;
use crate::signals::unless_interrupted;
use crate::verbs::story::until_it_runs;
use crate::verbs::{in_namespace_of, metadata, own_name, resource_of};

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
            let running = timeout(
                patience,
                unless_interrupted(until_it_runs(cluster, name, path, false)),
            )
            .await;
            running.with_context(|| format!("{name} does not run after {}s", patience.as_secs()))??;
        }
    }
    Ok(())
}
