//! `rvm delete`: ends machines and takes their objects away: VirtualMachineInstances by rvm.v1, all kinds by a kubeconfig.

mod kubernetes;

use anyhow::{Context, Result, bail};
use rvm_proto::v1::DeleteRequest;
use serde_json::json;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::{Changes, KIND, metadata, read_manifests, resource_of};
use crate::args::{Delete, Global};
use crate::cluster::Resource;
use crate::connect::{Client, Door};
use crate::screen::say;

/// An object that is to go.
struct Doomed {
    resource: Resource,
    /// As its manifest has it, as far as that does.
    object: serde_json::Value,
}

pub async fn run(global: &Global, args: &Delete) -> Result<()> {
    let doomed = doomed(args)?;
    let kinds = doomed.iter().map(|doomed| doomed.resource);
    match Door::find_for(global, Resource::beyond_rvm(kinds)).await? {
        Door::Rvm(client) => {
            let namespace = global.namespace.as_deref().unwrap_or_default();
            by_rvm(client, namespace, &doomed, args).await
        }
        Door::Kubernetes(cluster) => kubernetes::run(&cluster, global, &doomed, args).await,
    }
}

async fn by_rvm(mut client: Client, namespace: &str, doomed: &[Doomed], args: &Delete) -> Result<()> {
    let mut going = Vec::new();
    for Doomed { object, .. } in doomed {
        let own = metadata(object, "namespace");
        let namespace = if own.is_empty() { namespace } else { own }.to_owned();
        let name = metadata(object, "name").to_owned();
        let request = DeleteRequest {
            namespace: namespace.clone(),
            name: name.clone(),
        };
        match client.delete(request).await {
            Ok(response) => {
                say(&format!("{KIND} {name:?} deleted"))?;
                going.push((namespace, name, response.into_inner().uid));
            }
            Err(status) if args.ignore_not_found && status.code() == Code::NotFound => {}
            Err(status) => return Err(status.into()),
        }
    }
    if args.wait {
        for (namespace, name, uid) in going {
            let gone = timeout(
                args.patience.timeout,
                until_it_is_gone(&mut client, &namespace, &name, &uid),
            )
            .await;
            gone.with_context(|| {
                format!("{name} is still there after {}s", args.patience.timeout.as_secs())
            })??;
        }
    }
    Ok(())
}

/// What the names and files say.
fn doomed(args: &Delete) -> Result<Vec<Doomed>> {
    let named = args.names.iter().map(|word| {
        let (kind, name) = word.split_once('/').unwrap_or(("vmi", word));
        match Resource::named(kind) {
            None | Some(Resource::Installation) => {
                bail!("{kind:?} is not a kind of machine; use vmi, vm or vmirs")
            }
            Some(resource) => Ok(Doomed {
                resource,
                object: json!({"metadata": {"name": name}}),
            }),
        }
    });
    let in_files = read_manifests(&args.files)?.into_iter().map(|object| {
        let resource = resource_of(&object).with_context(|| {
            format!(
                "{} is not a kind of machine; kubectl deletes others",
                object["kind"]
            )
        })?;
        Ok(Doomed { resource, object })
    });
    named.chain(in_files).collect()
}

/// Waits until no object of this UID is there: one of the same name may be a new one.
async fn until_it_is_gone(client: &mut Client, namespace: &str, name: &str, uid: &str) -> Result<()> {
    let mut changes = Changes::of(client, namespace, name).await?;
    loop {
        match changes.next().await {
            Ok(Some(vmi)) if vmi.metadata.uid.as_deref() == Some(uid) => {}
            Ok(_) => return Ok(()),
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Status>()
        .is_some_and(|status| status.code() == Code::NotFound)
}
