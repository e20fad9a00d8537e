//! What disks and interfaces are made from: volumes and networks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Extra;
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
