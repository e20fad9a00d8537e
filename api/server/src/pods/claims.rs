//! A VMI's PersistentVolumeClaims in its pod, so that the cluster brings them to its node as it would bring any pod's: it binds them
//! when the scheduler has chosen, has drivers attach and mount them, and gives their files to the pod's group.
//!
//! | the claim's `volumeMode` | in the container | what the machine gets |
//! | --- | --- | --- |
//! | `Filesystem` | a folder, which it may only look at | the file `disk.img`, which the handler opens |
//! | `Block` | a device node, which its cgroup allows | that node, which the handler gives to the container's user |
//!
//! What is plugged in later is not the pod's: its spec cannot be changed.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Client;
use kube::api::Api;
use rvm_types::VirtualMachineInstance;
use rvm_types::volume::Volume;
use serde_json::{Value, json};

use super::steps::StepError;

/// Where KubeVirt has such folders.
const FOLDERS: &str = "/var/run/kubevirt-private/vmi-disks";
/// And such devices.
const DEVICES: &str = "/dev";

/// A VMI's claims by their names, and which of them are block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims(BTreeMap<String, bool>);

/// What a pod has for them.
#[derive(Debug, Default)]
pub struct InPod {
    /// `spec.volumes`.
    pub volumes: Vec<Value>,
    /// `volumeMounts` of the container.
    pub mounts: Vec<Value>,
    /// `volumeDevices` of it.
    pub devices: Vec<Value>,
}

// === impl Claims ===

impl Claims {
    /// Asks for those of a VMI.
    ///
    /// # Errors
    /// The API's; one is missing.
    pub async fn of(client: &Client, vmi: &VirtualMachineInstance) -> Result<Self, StepError> {
        let near = vmi.metadata.namespace.as_deref().unwrap_or_default();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), near);
        let mut all = BTreeMap::new();
        for (_, name, _) in named(vmi) {
            let found = claims.get_opt(name).await?;
            let found = found.ok_or_else(|| StepError::NoClaim(name.to_owned()))?;
            let mode = found.spec.and_then(|spec| spec.volume_mode);
            all.insert(name.to_owned(), mode.as_deref() == Some("Block"));
        }
        Ok(Self(all))
    }

    /// What the pod of a VMI has for them.
    pub fn in_pod(&self, vmi: &VirtualMachineInstance) -> InPod {
        let mut has = InPod::default();
        for (volume, claim, only_reads) in named(vmi) {
            let mut source = json!({"claimName": claim});
            if only_reads {
                source["readOnly"] = true.into();
            }
            has.volumes
                .push(json!({"name": volume, "persistentVolumeClaim": source}));
            if self.0.get(claim).copied().unwrap_or_default() {
                has.devices
                    .push(json!({"name": volume, "devicePath": format!("{DEVICES}/{volume}")}));
            } else {
                let path = format!("{FOLDERS}/{volume}");
                has.mounts
                    .push(json!({"name": volume, "mountPath": path, "readOnly": true}));
            }
        }
        has
    }

    #[cfg(test)]
    pub fn sample(all: &[(&str, bool)]) -> Self {
        let all = all.iter().map(|(name, is_block)| ((*name).to_owned(), *is_block));
        Self(all.collect())
    }
}

/// The volumes of claims that a machine starts with: name, claim, and whether the claim says that it is only read.
fn named(vmi: &VirtualMachineInstance) -> impl Iterator<Item = (&str, &str, bool)> {
    let volumes = vmi.spec.volumes.iter().filter(|volume| !volume.is_hotpluggable());
    volumes.filter_map(|volume| claimed(volume).map(|(claim, reads)| (volume.name.as_str(), claim, reads)))
}

fn claimed(volume: &Volume) -> Option<(&str, bool)> {
    let under = volume.ephemeral.as_ref();
    let under = under.and_then(|under| under.persistent_volume_claim.as_ref());
    let claim = under.or(volume.persistent_volume_claim.as_ref())?;
    Some((claim.claim_name.as_deref()?, claim.read_only.unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::sample;

    #[test]
    fn a_claim_is_a_folder_or_a_device_of_the_pod_and_one_that_comes_later_is_neither() {
        let vmi = sample::vmi(json!({"volumes": [
            {"name": "files", "persistentVolumeClaim": {"claimName": "a", "readOnly": true}},
            {"name": "under", "ephemeral": {"persistentVolumeClaim": {"claimName": "b"}}},
            {"name": "device", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "later", "persistentVolumeClaim": {"claimName": "d", "hotpluggable": true}},
            {"name": "other", "emptyDisk": {"capacity": "1Mi"}},
        ]}));
        let has = Claims::sample(&[("a", false), ("b", false), ("c", true)]).in_pod(&vmi);
        assert_eq!(
            json!(has.volumes),
            json!([
                {"name": "files", "persistentVolumeClaim": {"claimName": "a", "readOnly": true}},
                {"name": "under", "persistentVolumeClaim": {"claimName": "b"}},
                {"name": "device", "persistentVolumeClaim": {"claimName": "c"}},
            ])
        );
        let folder = "/var/run/kubevirt-private/vmi-disks";
        assert_eq!(
            json!(has.mounts),
            json!([
                {"name": "files", "mountPath": format!("{folder}/files"), "readOnly": true},
                {"name": "under", "mountPath": format!("{folder}/under"), "readOnly": true},
            ])
        );
        assert_eq!(
            json!(has.devices),
            json!([{"name": "device", "devicePath": "/dev/device"}])
        );
    }
}
