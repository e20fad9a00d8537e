//! `KubeVirt`: the one object that says that a cluster runs virtual machines, and which KubeVirt it is like.
//!
//! With KubeVirt it is what an operator installs by. Here nothing is installed by it: it is there since tools look for its phase,
//! its conditions and its versions. What KubeVirt knows of settings is kept in it as it was written; rvm follows two of them
//! (`developerConfiguration.useEmulation` and `evictionStrategy`, where machines are in pods).

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Extra;
use crate::condition::Condition;

/// The KubeVirt whose API this is: virtctl warns where its own minor version is another one.
pub const KUBEVIRT_VERSION: &str = "v1.9.0";
/// The phase of a KubeVirt that is there.
pub const DEPLOYED: &str = "Deployed";

/// KubeVirt says that virtual machines can be run here, and which KubeVirt's API is served.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "KubeVirt",
    plural = "kubevirts",
    singular = "kubevirt",
    shortname = "kv",
    shortname = "kvs",
    category = "all",
    namespaced,
    status = "KubeVirtStatus",
    derive = "PartialEq",
    doc = "KubeVirt says that virtual machines can be run here, and which KubeVirt's API is served."
)]
#[serde(rename_all = "camelCase")]
pub struct KubeVirtSpec {
    /// Of KubeVirt's settings two are followed, where machines are in pods: developerConfiguration.useEmulation and evictionStrategy. The others are kept as they were written: rvm's programs have options instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// KubeVirt's settings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Configuration {
    /// All of them.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What is observed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeVirtStatus {
    /// Deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// What holds: Created, Available, Progressing, Degraded; Synchronized where there is another KubeVirt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation that this is said of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The KubeVirt whose API is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_kube_virt_version: Option<String>,
    /// The same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_kube_virt_version: Option<String>,
    /// The same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_version: Option<String>,
    /// The architecture of guests whose VMI does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_architecture: Option<String>,
    /// Instances that an older rvm runs; always 0, since each runs on as it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outdated_virtual_machine_instance_workloads: Option<i32>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}
