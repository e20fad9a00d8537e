//! Before rvm is taken from a cluster: its machines end well only while their nodes' handlers are there, and would keep their kinds from
//! being removed afterwards.
//!
//! A hook of the chart runs it. It refuses, with the machines' names, or has all of them ended and waits until they are gone.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams};
use kube::{Client, ResourceExt};
use rvm_server::observe::traces::Traces;
use rvm_server::program::{self, LogFormat};
use rvm_types::{VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceReplicaSet};

/// How often it is looked whether they are gone.
const LOOK: Duration = Duration::from_secs(1);
/// Objects that are asked for at once.
const PAGE: u32 = 500;
/// Machines that a refusal names.
const NAMED: usize = 10;

/// Refuses while there are machines, or removes them.
///
/// # Errors
/// There are some, or the cluster cannot be asked.
#[tokio::main(flavor = "current_thread")]
pub async fn run(kubeconfig: Option<&Path>, remove: bool) -> Result<()> {
    program::log(LogFormat::Text, &["rvm_api"], &Traces::default());
    let otherwise = "no cluster is known; give --kubeconfig";
    let client = program::client(program::configuration(kubeconfig, otherwise).await?)?;
    // What makes others first, or it would make them again.
    let kinds = [
        ApiResource::erase::<VirtualMachine>(&()),
        ApiResource::erase::<VirtualMachineInstanceReplicaSet>(&()),
        ApiResource::erase::<VirtualMachineInstance>(&()),
    ];
    let mut said = false;
    loop {
        let mut left = Vec::new();
        for kind in &kinds {
            left.extend(all(&client, kind).await?.into_iter().map(|one| (kind, one)));
        }
        if left.is_empty() {
            return Ok(());
        }
        if !remove {
            bail!(refusal(&left));
        }
        if !said {
            tracing::info!(
                count = left.len(),
                "machines and what makes them are ended and removed"
            );
            said = true;
        }
        for (kind, one) in left
            .iter()
            .filter(|(_, one)| one.metadata.deletion_timestamp.is_none())
        {
            delete(&client, kind, one).await?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// All objects of a kind; none where the cluster does not know it.
async fn all(client: &Client, kind: &ApiResource) -> Result<Vec<DynamicObject>> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), kind);
    let (mut page, mut found) = (ListParams::default().limit(PAGE), Vec::new());
    loop {
        let list = match api.list(&page).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(found),
            list => {
                list.with_context(|| format!("the cluster does not say which {} there are", kind.plural))?
            }
        };
        found.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

async fn delete(client: &Client, kind: &ApiResource, one: &DynamicObject) -> Result<()> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &one.namespace().unwrap_or_default(), kind);
    match api.delete(&one.name_any(), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        done => done
            .map(drop)
            .with_context(|| format!("{} {} cannot be removed", kind.kind, one.name_any())),
    }
}

fn refusal(left: &[(&ApiResource, DynamicObject)]) -> String {
    let name = |(kind, one): &(&ApiResource, DynamicObject)| {
        let namespace = one.namespace().unwrap_or_default();
        format!("{} {namespace}/{}", kind.kind, one.name_any())
    };
    let named: Vec<String> = left.iter().take(NAMED).map(name).collect();
    let more = if left.len() > NAMED { ", …" } else { "" };
    format!(
        "there are machines, which would be lost: {}{more}. Delete them first (kubectl delete vm,vmirs,vmi --all --all-namespaces), or \
         say --remove (the chart's uninstall.machines=remove)",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_machines_and_what_to_do() {
        let kind = ApiResource::erase::<VirtualMachineInstance>(&());
        let one = |name: &str| (&kind, DynamicObject::new(name, &kind).within("web"));
        let few = refusal(&[one("a"), one("b")]);
        assert!(
            few.starts_with("there are machines, which would be lost: VirtualMachineInstance web/a, VirtualMachineInstance web/b. "),
            "{few}"
        );
        let many: Vec<_> = (0..NAMED + 1).map(|number| one(&format!("m{number}"))).collect();
        assert!(refusal(&many).contains("web/m9, …. Delete"), "{}", refusal(&many));
    }
}
