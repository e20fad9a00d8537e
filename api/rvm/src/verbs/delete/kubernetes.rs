//! Objects taken away by the Kubernetes API.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::Doomed;
use crate::args::{Delete, Global};
use crate::cluster::Cluster;
use crate::screen::say;
use crate::verbs::{in_namespace_of, metadata, own_name};

/// Between two looks at what is going.
const AGAIN: Duration = Duration::from_millis(500);

pub(super) async fn run(cluster: &Cluster, global: &Global, doomed: &[Doomed], args: &Delete) -> Result<()> {
    let mut going = Vec::new();
    for Doomed { resource, object } in doomed {
        let name = own_name(object)?;
        let path = in_namespace_of(cluster, global, object)?.object(*resource, name);
        match cluster.ask("DELETE", &path, Vec::new()).await {
            Ok(said) => {
                say(&format!("{}.kubevirt.io {name:?} deleted", resource.singular()))?;
                going.push((name, path, uid(&said)?));
            }
            Err(said) if args.ignore_not_found && said.is_not_found() => {}
            Err(said) => return Err(said.into()),
        }
    }
    if args.wait {
        let patience = args.patience.timeout;
        for (name, path, uid) in going {
            let gone = timeout(patience, until_it_is_gone(cluster, &path, &uid)).await;
            gone.with_context(|| format!("{name} is still there after {}s", patience.as_secs()))??;
        }
    }
    Ok(())
}

/// Whose end was ordered: a server answers with the object, or with a status of it.
fn uid(said: &str) -> Result<String> {
    let said: Value = serde_json::from_str(said).context("the server sent something that is no JSON")?;
    let uid = said.pointer("/details/uid").or(said.pointer("/metadata/uid"));
    Ok(uid.and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// Looks until no object of this UID is there: one of the same name may be a new one.
async fn until_it_is_gone(cluster: &Cluster, path: &str, uid: &str) -> Result<()> {
    while let Some(object) = cluster.find(path).await? {
        if !uid.is_empty() && metadata(&object, "uid") != uid {
            break;
        }
        sleep(AGAIN).await;
    }
    Ok(())
}
