//! What disks and interfaces are made from: volumes and networks. What a volume brings to the guest as files is in
//! [`crate::config`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Extra;
use crate::config::{CloudInit, ConfigMapVolume, DownwardApiVolume, SecretVolume, ServiceAccountVolume};
use crate::quantity::Quantity;

/// What a disk is made from. Exactly one source is given.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// The name by which a disk asks for it.
    #[schemars(length(min = 1))]
    pub name: String,
    /// A disk inside an OCI image; what the guest writes is lost when the machine ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_disk: Option<ContainerDisk>,
    /// An empty disk that lives as long as the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_disk: Option<EmptyDisk>,
    /// A disk in a file of the node. The node's owner says below which folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_disk: Option<HostDisk>,
    /// Each of a ConfigMap's keys as a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapVolume>,
    /// Each of a Secret's keys as a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretVolume>,
    /// The token of a ServiceAccount, and what else a pod has to speak to the cluster, as files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountVolume>,
    /// Fields of the machine's own object as files.
    #[serde(default, rename = "downwardAPI", skip_serializing_if = "Option::is_none")]
    pub downward_api: Option<DownwardApiVolume>,
    /// What cloud-init finds as its data source NoCloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init_no_cloud: Option<CloudInit>,
    /// What cloud-init finds as its data source ConfigDrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init_config_drive: Option<CloudInit>,
    /// The disk of a PersistentVolumeClaim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimVolume>,
    /// The disk of a PersistentVolumeClaim, which stays as it is: what the guest writes goes with the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<EphemeralVolume>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Volume {
    /// The sources that are given, each with the fields of it that are not modelled.
    pub fn sources(&self) -> Vec<(&'static str, &Extra)> {
        let all = [
            (
                "containerDisk",
                self.container_disk.as_ref().map(|source| &source.extra),
            ),
            ("emptyDisk", self.empty_disk.as_ref().map(|source| &source.extra)),
            ("hostDisk", self.host_disk.as_ref().map(|source| &source.extra)),
            ("configMap", self.config_map.as_ref().map(|source| &source.extra)),
            ("secret", self.secret.as_ref().map(|source| &source.extra)),
            (
                "serviceAccount",
                self.service_account.as_ref().map(|source| &source.extra),
            ),
            (
                "downwardAPI",
                self.downward_api.as_ref().map(|source| &source.extra),
            ),
            (
                "cloudInitNoCloud",
                self.cloud_init_no_cloud.as_ref().map(|source| &source.extra),
            ),
            (
                "cloudInitConfigDrive",
                self.cloud_init_config_drive.as_ref().map(|source| &source.extra),
            ),
            (
                "persistentVolumeClaim",
                self.persistent_volume_claim.as_ref().map(|source| &source.extra),
            ),
            ("ephemeral", self.ephemeral.as_ref().map(|source| &source.extra)),
        ];
        let given = all.into_iter().filter_map(|(field, extra)| Some((field, extra?)));
        given.collect()
    }

    /// Whether it comes and goes while the machine runs.
    pub fn is_hotpluggable(&self) -> bool {
        let claim = self.persistent_volume_claim.as_ref();
        claim.and_then(|claim| claim.hotpluggable).unwrap_or(false)
    }

    /// The claim whose disk it is.
    pub fn claim(&self) -> Option<&str> {
        self.persistent_volume_claim.as_ref()?.claim_name.as_deref()
    }
}

/// A PersistentVolumeClaim of the VMI's namespace.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimVolume {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_name: Option<String>,
    /// The guest may only read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// The disk is plugged in once the machine runs, and can be pulled out while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hotpluggable: Option<bool>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a disk starts as.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EphemeralVolume {
    /// The claim that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimVolume>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A disk in a file of the node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostDisk {
    /// The file.
    pub path: String,
    /// Disk: it is there. DiskOrCreate: it is made where it is not.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its size where it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Quantity>,
    /// Whether several nodes have the file; accepted, and changes nothing: a file has one writer at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A disk inside an OCI image: the one file under `/disk`. Where the annotation `rvm/root-filesystem` names this
/// volume, the image is an ordinary one instead and its layers become the guest's root file system.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerDisk {
    /// The image's reference.
    #[schemars(length(min = 1))]
    pub image: String,
    /// When to ask the registry: Always, IfNotPresent or Never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// The secret that opens the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_secret: Option<String>,
    /// The disk's path in the image, where it is not the one file under `/disk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// An empty disk that lives as long as the machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDisk {
    /// The disk's size.
    pub capacity: Quantity,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What an interface is attached to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// The name by which an interface asks for it.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The pod's own network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodNetwork>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The pod's own network.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodNetwork {
    /// The guest's side of a masquerade, 10.0.2.0/24 by default.
    #[serde(default, rename = "vmNetworkCIDR", skip_serializing_if = "Option::is_none")]
    pub vm_network_cidr: Option<String>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}
