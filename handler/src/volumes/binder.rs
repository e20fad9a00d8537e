//! Who has which PersistentVolume in local mode, and when a claim may go: the part of Kubernetes' controllers that is needed
//! where there are none.
//!
//! ```text
//!   claim Pending, volumeName ── its volume fits and is free ──► claimRef, both Bound
//!   claim deleted ── no VMI uses it ──► its own disk removed, its volume Released, its finalizer gone
//! ```
//!
//! Every step is looked for anew, so that one may end between any two of them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use rvm_types::VirtualMachineInstance;
use rvm_types::names::finalizers::CLAIM_PROTECTION;
use rvm_types::quantity::Quantity;
use serde_json::{Value, json};

use super::claims::{Claims, is_over, uses};
use crate::changes::{self, Changes};
use crate::translate::disks::SECTOR;

/// Bytes of storage, in whole sectors.
pub(super) fn storage(amounts: &BTreeMap<String, Amount>) -> Option<u64> {
    let bytes = Quantity::Text(amounts.get("storage")?.0.clone()).bytes().ok()?;
    bytes.checked_next_multiple_of(SECTOR)
}

/// Whether a claim may have this volume, or else why not.
pub(super) fn fits(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), String> {
    let (wish, has) = (
        claim.spec.clone().unwrap_or_default(),
        volume.spec.clone().unwrap_or_default(),
    );
    let name = volume.name_any();
    let is_ours = has.claim_ref.as_ref().is_none_or(|other| {
        (other.namespace.as_ref(), other.name.as_ref())
            == (claim.metadata.namespace.as_ref(), claim.metadata.name.as_ref())
            && (other.uid.is_none() || other.uid == claim.metadata.uid)
    });
    let requests = wish
        .resources
        .and_then(|resources| resources.requests)
        .unwrap_or_default();
    let (wanted, there) = (storage(&requests), has.capacity.as_ref().and_then(storage));
    let modes = has.access_modes.unwrap_or_default();
    let why = if volume.metadata.deletion_timestamp.is_some() {
        "is being deleted"
    } else if !is_ours {
        "belongs to another claim"
    } else if wanted.is_none() || wanted > there {
        "is too small"
    } else if wish.volume_mode != has.volume_mode {
        "has another volumeMode"
    } else if !wish
        .access_modes
        .unwrap_or_default()
        .iter()
        .all(|mode| modes.contains(mode))
    {
        "lacks an access mode"
    } else if wish.storage_class_name.unwrap_or_default() != has.storage_class_name.unwrap_or_default() {
        "has another storageClassName"
    } else {
        return Ok(());
    };
    Err(format!("its PersistentVolume '{name}' {why}"))
}

/// Does so whenever claims, volumes or VMIs change.
pub async fn follow(client: &Client, claims: &Claims) {
    let mut changes = Changes::any([
        changes::of(Api::<PersistentVolumeClaim>::all(client.clone())),
        changes::of(Api::<PersistentVolume>::all(client.clone())),
        changes::of(Api::<VirtualMachineInstance>::all(client.clone())),
    ]);
    let mut settled = true;
    while changes.next(settled).await {
        let turned = turn(client, claims).await;
        settled = turned.is_ok();
        if let Err(error) = turned {
            tracing::warn!(%error, "looking for PersistentVolumeClaims failed");
        }
    }
}

/// Binds the claims that can be, and lets those go that are deleted and not used any more.
async fn turn(client: &Client, claims: &Claims) -> kube::Result<()> {
    let all: Api<PersistentVolumeClaim> = Api::all(client.clone());
    for claim in all.list(&ListParams::default()).await? {
        if claim.metadata.deletion_timestamp.is_some() {
            release(client, claims, &claim).await?;
        } else if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending") {
            bind(client, &claim).await?;
        }
    }
    Ok(())
}

async fn bind(client: &Client, claim: &PersistentVolumeClaim) -> kube::Result<()> {
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let Some(name) = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_ref()) else {
        return Ok(());
    };
    let Some(volume) = volumes.get_opt(name).await? else {
        return Ok(());
    };
    // What does not fit, a VMI that asks for it is told.
    if fits(claim, &volume).is_err() {
        return Ok(());
    }
    let holder = json!({"metadata": {"resourceVersion": volume.resource_version()}, "spec": {"claimRef": {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.metadata.namespace,
        "name": claim.metadata.name, "uid": claim.metadata.uid,
    }}});
    if !settled(
        volumes
            .patch(name, &PatchParams::default(), &Patch::Merge(&holder))
            .await,
    )? {
        return Ok(());
    }
    mark(&volumes, name, "Bound").await?;
    let spec = volume.spec.unwrap_or_default();
    let status = json!({"metadata": {"uid": claim.metadata.uid}, "status": {
        "phase": "Bound", "capacity": spec.capacity, "accessModes": spec.access_modes,
    }});
    let namespace = claim.namespace().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let (params, status) = (PatchParams::default(), Patch::Merge(&status));
    settled(claims.patch_status(&claim.name_any(), &params, &status).await)?;
    Ok(())
}

async fn release(client: &Client, claims: &Claims, claim: &PersistentVolumeClaim) -> kube::Result<()> {
    if !claim
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == CLAIM_PROTECTION)
    {
        return Ok(());
    }
    let (name, namespace) = (claim.name_any(), claim.namespace().unwrap_or_default());
    let vmis: Api<VirtualMachineInstance> = Api::namespaced(client.clone(), &namespace);
    let vmis = vmis.list(&ListParams::default()).await?;
    if vmis
        .iter()
        .any(|vmi| !is_over(vmi) && uses(vmi, &name).next().is_some())
    {
        return Ok(());
    }
    if let Err(error) = claims.remove(claim) {
        tracing::warn!(name, namespace, %error, "the claim's disk cannot be removed");
        return Ok(());
    }
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
    if let Some(volume) = volume
        && let Some(found) = volumes.get_opt(volume).await?
        && let Some(holder) = found.spec.and_then(|spec| spec.claim_ref)
        && holder.uid == claim.metadata.uid
    {
        mark(&volumes, volume, "Released").await?;
    }
    let kept = claim.finalizers().iter().filter(|one| *one != CLAIM_PROTECTION);
    let patch = json!({"metadata": {
        "resourceVersion": claim.resource_version(), "finalizers": kept.collect::<Vec<_>>(),
    }});
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    settled(
        claims
            .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await,
    )?;
    Ok(())
}

async fn mark(volumes: &Api<PersistentVolume>, name: &str, phase: &str) -> kube::Result<()> {
    let status: Value = json!({"status": {"phase": phase}});
    let (params, status) = (PatchParams::default(), Patch::Merge(&status));
    settled(volumes.patch_status(name, &params, &status).await).map(drop)
}

/// Whether it was done; where somebody else was first, the next turn sees what there is to do.
fn settled<T>(done: kube::Result<T>) -> kube::Result<bool> {
    match done {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(change: impl FnOnce(&mut Value)) -> PersistentVolumeClaim {
        let mut claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "1"}, "spec": {
            "volumeName": "v", "volumeMode": "Block", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        }});
        change(&mut claim);
        serde_json::from_value(claim).unwrap()
    }

    fn volume(change: impl FnOnce(&mut Value)) -> PersistentVolume {
        let mut volume = json!({"metadata": {"name": "v"}, "spec": {
            "local": {"path": "/dev/x"}, "volumeMode": "Block", "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
            "capacity": {"storage": "2Gi"},
        }});
        change(&mut volume);
        serde_json::from_value(volume).unwrap()
    }

    fn refused(claim: &PersistentVolumeClaim, volume: &PersistentVolume, why: &str) {
        assert_eq!(
            fits(claim, volume),
            Err(format!("its PersistentVolume 'v' {why}"))
        );
    }

    #[test]
    fn a_claim_has_the_volume_that_it_names_if_that_is_free_and_does() {
        let same = |_: &mut Value| {};
        assert_eq!(fits(&claim(same), &volume(same)), Ok(()));
        let held = |name: &'static str, uid: Value| {
            volume(move |it| it["spec"]["claimRef"] = json!({"namespace": "n", "name": name, "uid": uid}))
        };
        assert_eq!(fits(&claim(same), &held("c", json!("1"))), Ok(()));
        assert_eq!(fits(&claim(same), &held("c", Value::Null)), Ok(()));
        refused(&claim(same), &held("c", json!("2")), "belongs to another claim");
        refused(&claim(same), &held("d", Value::Null), "belongs to another claim");
        let large = claim(|it| it["spec"]["resources"]["requests"]["storage"] = json!("3Gi"));
        refused(&large, &volume(same), "is too small");
        let files = claim(|it| it["spec"]["volumeMode"] = json!("Filesystem"));
        refused(&files, &volume(same), "has another volumeMode");
        let many = claim(|it| it["spec"]["accessModes"] = json!(["ReadWriteMany"]));
        refused(&many, &volume(same), "lacks an access mode");
        let fast = volume(|it| it["spec"]["storageClassName"] = json!("fast"));
        refused(&claim(same), &fast, "has another storageClassName");
        let leaving = volume(|it| it["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
        refused(&claim(same), &leaving, "is being deleted");
    }
}
