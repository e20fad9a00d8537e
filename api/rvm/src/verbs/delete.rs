//! `rvm delete`: ends machines and takes their objects away.

use anyhow::{Context, Result};
use rvm_proto::v1::DeleteRequest;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::{Changes, KIND, bare_name, metadata, read_manifests};
use crate::args::Delete;
use crate::connect::Client;
use crate::screen::say;

/// An object that is to go: its namespace and name.
type Doomed = (String, String);

pub async fn run(mut client: Client, namespace: &str, args: &Delete) -> Result<()> {
    let mut going = Vec::new();
    for (namespace, name) in doomed(namespace, args)? {
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

fn doomed(namespace: &str, args: &Delete) -> Result<Vec<Doomed>> {
    if args.files.is_empty() {
        let names = args
            .names
            .iter()
            .map(|name| Ok((namespace.to_owned(), bare_name(name)?.to_owned())));
        return names.collect();
    }
    let of = |object: &serde_json::Value| {
        let own = metadata(object, "namespace");
        let namespace = if own.is_empty() { namespace } else { own };
        (namespace.to_owned(), metadata(object, "name").to_owned())
    };
    Ok(read_manifests(&args.files)?.iter().map(of).collect())
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
