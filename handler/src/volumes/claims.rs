//! The disks of PersistentVolumeClaims.
//!
//! ```text
//!   claim with volumeName ─────► its PersistentVolume, `local` or `hostPath`: disk.img in a folder of the node, or a block
//!                                device of it, both below the folders that are allowed for host disks; never removed
//!   claim without volumeName ──► in local mode <state>/claims/<uid>/disk.img, where KubeVirt has it in a claim's file system:
//!                                made, sparse, when a VMI first asks for it; removed with its claim (binder.rs)
//! ```
//!
//! In local mode we bind claims ourselves (binder.rs), in a cluster its own controller does. Its volumes lie where their
//! `nodeAffinity` says, so a VMI is only claimed where all of its disks are: [`Claims::fit`].
//!
//! A machine in a pod starts with claims that are the pod's, which the cluster has brought there by whatever driver (brought.rs); a
//! `hostPath`, which the kubelet has no place for, and what is plugged in later are those of the node as above.
//!
//! A disk has one machine that writes it, whatever the claim's access modes say, or many that read it.

mod place;

use std::fs::{DirBuilder, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use rvm_types::names::reasons;
use rvm_types::status::VolumeStatus;
use rvm_types::volume::{ClaimVolume, Volume};
use rvm_types::{Phase, VirtualMachineInstance};

use super::host_disk::{Allowed, HostDiskError};
use super::{binder, brought};
use crate::hotplug;
use crate::images::DiskImage;
use crate::plan::Me;
use crate::steps::chain;
use crate::vm::VmId;
use rvmm_spec::DiskFormat;

pub use place::Given;
use place::{Place, bound};

/// The disk's file in a claim's folder: KubeVirt's name.
const DISK: &str = "disk.img";

/// Why a claim of a cluster has no disk.
const NO_VOLUME: &str = "the cluster has given it no PersistentVolume; where its StorageClass waits for a first consumer, that is a pod, \
                         which has it from its start";

/// A claim's disk cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Only a pod would get it.
    #[error(
        "the PersistentVolumeClaim '{0}' has a volume of {1}, which only a pod that starts with it gets; `local` and `hostPath` volumes \
         can be used without one"
    )]
    Driver(String, String),
    /// Another node has it.
    #[error("the PersistentVolumeClaim '{0}' has a volume whose nodeAffinity does not admit this node")]
    Elsewhere(String),
    /// It is not there.
    #[error("there is no PersistentVolumeClaim '{0}' in the namespace")]
    Missing(String),
    /// It will not be there much longer.
    #[error("the PersistentVolumeClaim '{0}' is being deleted")]
    Leaving(String),
    /// It names a PersistentVolume that it does not have.
    #[error("the PersistentVolumeClaim '{0}' is not bound: {1}")]
    Unbound(String, String),
    /// There is nothing to lay another file over.
    #[error(
        "the PersistentVolumeClaim '{0}' is a block device, over which a machine in a pod can have no ephemeral disk"
    )]
    NoBase(String),
    /// Two would write it.
    #[error("the PersistentVolumeClaim '{0}' is in use by the VMI '{1}'")]
    InUse(String, String),
    /// Not one of local mode's.
    #[error("the PersistentVolumeClaim '{0}' has no size or identity")]
    Odd(String),
    /// The API does not give it.
    #[error("the PersistentVolumeClaim '{0}' cannot be read")]
    Api(String, #[source] Box<kube::Error>),
    /// Its place.
    #[error("'{0}' cannot be made")]
    Io(PathBuf, #[source] io::Error),
    /// Its PersistentVolume's place.
    #[error("the PersistentVolume's disk cannot be used")]
    Volume(#[from] HostDiskError),
}

// === impl ClaimError ===

impl ClaimError {
    /// In one word, for the VMI's condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing(_) => reasons::FAILED_PVC_NOT_FOUND,
            _ => reasons::FAILED_CREATE,
        }
    }
}

/// What is to be known of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    place: Place,
    /// Bytes that its disk has when it is made.
    size: u64,
}

/// Whether this node can run a VMI, as far as its claims go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// All of their disks are here.
    Here,
    /// A disk is at another node.
    Elsewhere,
    /// No node can, yet.
    NotYet {
        /// In one word.
        reason: &'static str,
        /// Why.
        message: String,
    },
}

/// The claims' disks.
#[derive(Debug)]
pub struct Claims {
    /// Where those lie that have no PersistentVolume; nowhere in a cluster.
    folder: Option<PathBuf>,
}

// === impl Claim ===

impl Claim {
    /// Whether it can be read past the page cache, where that is known without looking at its file.
    pub fn can_be_direct(&self) -> Option<bool> {
        match &self.place {
            Place::Brought(folder) => Some(brought::can_be_direct(&folder.join(DISK))),
            Place::InContainer(_) => Some(true),
            Place::Own(_) | Place::Folder(_) | Place::Device(_) => None,
        }
    }

    /// Whether it is a device that only its pod can open.
    pub fn is_in_container(&self) -> bool {
        matches!(self.place, Place::InContainer(_))
    }
}

// === impl Claims ===

impl Claims {
    /// Of local mode, below the state directory.
    pub fn below(state: &Path) -> Self {
        Self {
            folder: Some(state.join("claims")),
        }
    }

    /// Of a cluster, which binds them.
    pub fn of_cluster() -> Self {
        Self { folder: None }
    }

    /// Whether there is nobody else who binds them.
    pub fn are_ours(&self) -> bool {
        self.folder.is_some()
    }

    /// Whether this node can have the disks of a VMI's claims. A claim that another VMI uses is no obstacle yet.
    pub async fn fit(&self, client: &Client, id: &VmId, vmi: &VirtualMachineInstance, me: &Me) -> Fit {
        if me.in_pods {
            // Its pod is here, and whoever put it here has looked.
            return Fit::Here;
        }
        for (name, comes_later) in names(vmi) {
            match self.locate(client, id, name, me, None).await {
                Ok(_) => {}
                Err(ClaimError::Elsewhere(_)) => return Fit::Elsewhere,
                // The machine starts without it.
                Err(_) if comes_later => {}
                Err(error) => {
                    return Fit::NotYet {
                        reason: error.reason(),
                        message: chain(&error),
                    };
                }
            }
        }
        Fit::Here
    }

    /// Asks for a claim that a VMI is to write, or only to read, and that its pod may have been given.
    ///
    /// # Errors
    /// Any [`ClaimError`].
    pub async fn find(
        &self,
        client: &Client,
        id: &VmId,
        (name, reads): (&str, bool),
        me: &Me,
        given: Option<Given<'_>>,
    ) -> Result<Claim, ClaimError> {
        let claim = self.locate(client, id, name, me, given).await?;
        let vmis: Api<VirtualMachineInstance> = Api::namespaced(client.clone(), &id.namespace);
        let vmis = vmis.list(&ListParams::default()).await;
        let vmis = vmis.map_err(|error| ClaimError::Api(name.to_owned(), Box::new(error)))?;
        let others = vmis
            .iter()
            .filter(|vmi| vmi.metadata.uid.as_deref() != Some(&id.uid));
        // Of two that are prepared at once, the image's lock lets one have it.
        let mut others = others.filter(|vmi| matches!(vmi.phase(), Some(Phase::Scheduled | Phase::Running)));
        match others.find(|vmi| held(vmi, name).any(|other_reads| !(reads && other_reads))) {
            Some(other) => Err(ClaimError::InUse(name.to_owned(), other.name_any())),
            None => Ok(claim),
        }
    }

    /// Where a claim's disk is, and how large.
    async fn locate(
        &self,
        client: &Client,
        id: &VmId,
        name: &str,
        me: &Me,
        given: Option<Given<'_>>,
    ) -> Result<Claim, ClaimError> {
        let failed = |error| ClaimError::Api(name.to_owned(), Box::new(error));
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &id.namespace);
        let found = claims.get_opt(name).await.map_err(failed)?;
        let found = found.ok_or_else(|| ClaimError::Missing(name.to_owned()))?;
        if found.metadata.deletion_timestamp.is_some() {
            return Err(ClaimError::Leaving(name.to_owned()));
        }
        let odd = || ClaimError::Odd(name.to_owned());
        let place = match found.spec.as_ref().and_then(|spec| spec.volume_name.as_ref()) {
            None if self.are_ours() => {
                let uid = found.metadata.uid.clone().filter(|uid| is_uid(uid));
                Place::Own(uid.ok_or_else(odd)?)
            }
            None => return Err(ClaimError::Unbound(name.to_owned(), NO_VOLUME.to_owned())),
            Some(volume) => {
                let volumes: Api<PersistentVolume> = Api::all(client.clone());
                let volume = volumes.get_opt(volume).await.map_err(failed)?;
                // In local mode there is one node.
                bound(&found, volume.as_ref(), (!self.are_ours()).then_some(me), given)?
            }
        };
        let size = found.status.as_ref().and_then(|status| status.capacity.as_ref());
        let size = size.and_then(binder::storage).ok_or_else(odd)?;
        Ok(Claim { place, size })
    }

    /// A claim's disk, made if it is not there.
    ///
    /// # Errors
    /// [`ClaimError::Io`], [`ClaimError::Volume`].
    pub fn disk(&self, claim: &Claim, allowed: &Allowed) -> Result<DiskImage, ClaimError> {
        let path = match &claim.place {
            Place::Own(uid) => self.own(uid, claim.size)?,
            Place::Folder(folder) => allowed.disk(&folder.join(DISK), Some(claim.size))?,
            Place::Device(device) => allowed.device(device)?,
            Place::Brought(folder) => {
                let path = folder.join(DISK);
                let size = brought::disk(&path, Some(claim.size))?;
                return Ok(raw(path, size));
            }
            // Whoever opens it sees its true size.
            Place::InContainer(device) => return Ok(raw(device.clone(), claim.size)),
        };
        // A block device tells its size only this way.
        let size = File::open(&path).and_then(|mut file| file.seek(SeekFrom::End(0)));
        let size = size.map_err(|error| ClaimError::Io(path.clone(), error))?;
        Ok(raw(path, size))
    }

    fn own(&self, uid: &str, size: u64) -> Result<PathBuf, ClaimError> {
        // Whoever has no such folder finds no claim to lie in it.
        let folder = self
            .folder
            .as_ref()
            .ok_or_else(|| ClaimError::Odd(uid.to_owned()))?;
        let folder = folder.join(uid);
        let path = folder.join(DISK);
        let make = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            let mut options = File::options();
            options.write(true).create(true).truncate(false).mode(0o600);
            let disk = options.open(&path)?;
            // One killed between the two leaves an empty file.
            if disk.metadata()?.len() == 0 {
                disk.set_len(size)?;
            }
            Ok(())
        };
        make().map_err(|error| ClaimError::Io(path.clone(), error))?;
        Ok(path)
    }

    /// Removes a claim's own disk; one that is not there is removed.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn remove(&self, claim: &PersistentVolumeClaim) -> io::Result<()> {
        let (Some(uid), Some(folder)) = (claim.uid().filter(|uid| is_uid(uid)), &self.folder) else {
            return Ok(());
        };
        match std::fs::remove_dir_all(folder.join(uid)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn raw(path: PathBuf, size: u64) -> DiskImage {
    DiskImage {
        path,
        format: DiskFormat::Raw,
        size,
    }
}

/// The claims that a VMI names, and whether they come once it runs.
fn names(vmi: &VirtualMachineInstance) -> impl Iterator<Item = (&str, bool)> {
    vmi.spec.volumes.iter().filter_map(|volume| {
        let under = volume.ephemeral.as_ref();
        let under = under.and_then(|under| under.persistent_volume_claim.as_ref());
        let claim = under.or(volume.persistent_volume_claim.as_ref())?;
        Some((claim.claim_name.as_deref()?, volume.is_hotpluggable()))
    })
}

/// For each use that a VMI's machine makes of a claim, whether it only reads. What is still to come is held by nobody.
fn held<'a>(vmi: &'a VirtualMachineInstance, name: &'a str) -> impl Iterator<Item = bool> + 'a {
    let told = vmi.status.iter().flat_map(|status| &status.volume_status);
    let waits = |volume: &&VolumeStatus| volume.phase.as_deref() == Some(hotplug::PENDING);
    let waiting: Vec<&str> = told.filter(waits).map(|volume| volume.name.as_str()).collect();
    let volumes = vmi.spec.volumes.iter();
    let volumes = volumes.filter(move |volume| !waiting.contains(&volume.name.as_str()));
    volumes.filter_map(move |volume| use_of(volume, name))
}

/// For each use that a VMI makes of a claim, whether it only reads.
pub(super) fn uses<'a>(vmi: &'a VirtualMachineInstance, name: &'a str) -> impl Iterator<Item = bool> + 'a {
    vmi.spec
        .volumes
        .iter()
        .filter_map(move |volume| use_of(volume, name))
}

fn use_of(volume: &Volume, name: &str) -> Option<bool> {
    let is_it = |claim: &&ClaimVolume| claim.claim_name.as_deref() == Some(name);
    let under = volume.ephemeral.as_ref();
    let under = under.and_then(|under| under.persistent_volume_claim.as_ref());
    let own = volume.persistent_volume_claim.as_ref().filter(is_it);
    let own = own.map(|claim| claim.read_only.unwrap_or(false));
    under.filter(is_it).map(|_| true).or(own)
}

pub(super) fn is_over(vmi: &VirtualMachineInstance) -> bool {
    matches!(vmi.phase(), Some(Phase::Succeeded | Phase::Failed))
}

/// Whether a text is a UID, and so the name of a folder.
fn is_uid(text: &str) -> bool {
    (1..=36).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sample::vmi_with;
    use serde_json::json;

    #[test]
    fn a_claims_disk_is_made_once_and_keeps_what_was_written() {
        let state = tempfile::tempdir().unwrap();
        let claims = Claims::below(state.path());
        let own = Claim {
            place: Place::Own("1-a".to_owned()),
            size: 8192,
        };
        let disk = || claims.disk(&own, &Allowed::default()).unwrap();
        assert_eq!(disk().size, 8192);
        fs::write(disk().path, "kept").unwrap();
        assert_eq!(
            (disk().size, fs::read(disk().path).unwrap()),
            (4, b"kept".to_vec())
        );
    }

    #[test]
    fn a_volumes_disk_lies_below_a_folder_that_is_allowed() {
        let state = tempfile::tempdir().unwrap();
        let claims = Claims::below(state.path());
        let folder = Claim {
            place: Place::Folder(state.path().to_owned()),
            size: 4096,
        };
        let refused = claims.disk(&folder, &Allowed::default());
        assert!(matches!(refused, Err(ClaimError::Volume(HostDiskError::Off))));
        let allowed = Allowed(vec![state.path().to_owned()]);
        let disk = claims.disk(&folder, &allowed).unwrap();
        assert_eq!((disk.path, disk.size), (state.path().join("disk.img"), 4096));
        let device = Claim {
            place: Place::Device(state.path().join("disk.img")),
            size: 4096,
        };
        let refused = claims.disk(&device, &allowed);
        assert!(matches!(
            refused,
            Err(ClaimError::Volume(HostDiskError::NoDevice(_)))
        ));
    }

    /// Where the disk of a claim is for node `n1`, whose volume is `local` with this change.
    fn found(change: impl FnOnce(&mut serde_json::Value)) -> Result<Place, String> {
        let modes = json!(["ReadWriteOnce"]);
        let claim = json!({
            "metadata": {"name": "c", "namespace": "n", "uid": "1"},
            "spec": {
                "volumeName": "v", "volumeMode": "Block", "accessModes": modes,
                "resources": {"requests": {"storage": "1Gi"}},
            },
            "status": {"phase": "Bound"},
        });
        let mut volume = json!({"metadata": {"name": "v"}, "spec": {
            "local": {"path": "/dev/x"}, "volumeMode": "Block", "accessModes": modes, "capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": "n", "name": "c", "uid": "1"},
        }});
        change(&mut volume["spec"]);
        let volume = serde_json::from_value(volume).unwrap();
        let me = Me {
            node: "n1".to_owned(),
            ..Me::default()
        };
        let place = bound(
            &serde_json::from_value(claim).unwrap(),
            Some(&volume),
            Some(&me),
            None,
        );
        place.map_err(|error| error.to_string())
    }

    #[test]
    fn a_bound_claims_disk_is_at_a_node_that_its_volume_admits() {
        assert_eq!(found(|_| {}), Ok(Place::Device("/dev/x".into())));
        let of = |node: &str| {
            json!({"required": {"nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": [node]},
            ]}]}})
        };
        assert!(found(|spec| spec["nodeAffinity"] = of("n1")).is_ok());
        let elsewhere = found(|spec| spec["nodeAffinity"] = of("n2")).unwrap_err();
        assert!(elsewhere.ends_with("nodeAffinity does not admit this node"));
        // Whoever may write a claim may name any volume in it; only the volume says whose it is.
        let free = found(|spec| spec["claimRef"] = json!(null)).unwrap_err();
        assert!(free.ends_with("is not bound: its PersistentVolume is about to be"));
        let nfs = found(|spec| {
            spec["local"] = json!(null);
            spec["nfs"] = json!({"server": "a", "path": "/"});
        });
        assert!(
            nfs.unwrap_err()
                .contains("`local` and `hostPath` volumes can be used without one")
        );
    }

    #[test]
    fn only_a_uid_is_a_folders_name() {
        assert!(is_uid("6f9619ff-8b86-4d01-b42d-00cf4fc964ff"));
        assert!(
            ["", "..", "a/b", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff0"]
                .iter()
                .all(|text| !is_uid(text))
        );
    }

    #[test]
    fn a_vmi_reads_what_lies_under_its_disk_and_writes_the_others() {
        let mut vmi = vmi_with(json!({}));
        let volumes = json!([
            {"name": "a", "persistentVolumeClaim": {"claimName": "one"}},
            {"name": "b", "persistentVolumeClaim": {"claimName": "two", "readOnly": true}},
            {"name": "c", "ephemeral": {"persistentVolumeClaim": {"claimName": "two"}}},
        ]);
        vmi.spec.volumes = serde_json::from_value(volumes).unwrap();
        let all = |name| uses(&vmi, name).collect::<Vec<_>>();
        assert_eq!(
            (all("one"), all("two"), all("no")),
            (vec![false], vec![true, true], vec![])
        );
    }
}
