//! Where the disk of a claim is, once that is bound: what its PersistentVolume says, and what the machine's pod was given.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec};
use kube::ResourceExt;

use super::ClaimError;
use crate::plan::Me;
use crate::status::bounded;
use crate::volumes::brought::PodFolder;
use crate::volumes::{affinity, binder};

/// Where a claim's disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Among our own, by the claim's UID.
    Own(String),
    /// In a folder of the node.
    Folder(PathBuf),
    /// A block device of the node.
    Device(PathBuf),
    /// In a folder that the kubelet has brought to the pod.
    Brought(PathBuf),
    /// A block device of the pod's container.
    InContainer(PathBuf),
}

/// What a machine's pod was given: its folder, and the volume that has the claim.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The pod's folder.
    pub folder: &'a PodFolder,
    /// The volume's name in it.
    pub volume: &'a str,
}

// === impl Given ===

impl Given<'_> {
    fn place(&self, volume: &PersistentVolume, spec: &PersistentVolumeSpec, is_block: bool) -> Option<Place> {
        let folder = self.folder.file_system(&volume.name_any(), spec)?;
        Some(if is_block {
            Place::InContainer(self.folder.device(self.volume))
        } else {
            Place::Brought(folder)
        })
    }
}

/// Where the disk of a bound claim is, and whether that is at this node, where there are others.
pub(super) fn bound(
    claim: &PersistentVolumeClaim,
    volume: Option<&PersistentVolume>,
    me: Option<&Me>,
    given: Option<Given<'_>>,
) -> Result<Place, ClaimError> {
    let name = || claim.name_any();
    let unbound = |why: String| ClaimError::Unbound(name(), why);
    let volume = volume.ok_or_else(|| unbound("its PersistentVolume is not there".to_owned()))?;
    binder::fits(claim, volume).map_err(unbound)?;
    let is_bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let spec = volume.spec.as_ref().filter(|spec| {
        let holder = spec.claim_ref.as_ref();
        is_bound && holder.is_some_and(|holder| holder.uid == claim.metadata.uid)
    });
    let spec = spec.ok_or_else(|| unbound("its PersistentVolume is about to be".to_owned()))?;
    let is_block = spec.volume_mode.as_deref() == Some("Block");
    if let Some(given) = given
        && let Some(place) = given.place(volume, spec, is_block)
    {
        return Ok(place);
    }
    let local = spec.local.as_ref().map(|local| &local.path);
    let path = local.or(spec.host_path.as_ref().map(|host| &host.path));
    let path = path
        .ok_or_else(|| ClaimError::Driver(name(), driver(spec)))?
        .into();
    let affinity = spec.node_affinity.as_ref();
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    if let (Some(required), Some(me)) = (required, me)
        && !affinity::admits(required, &me.node, &me.labels)
    {
        return Err(ClaimError::Elsewhere(name()));
    }
    Ok(if is_block {
        Place::Device(path)
    } else {
        Place::Folder(path)
    })
}

/// What would have to bring a volume to its node.
fn driver(spec: &PersistentVolumeSpec) -> String {
    match &spec.csi {
        Some(csi) => format!("the CSI driver '{}'", bounded(&csi.driver)),
        None => "a kind that the node does not have by itself".to_owned(),
    }
}
