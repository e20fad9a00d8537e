//! `VirtualMachineInstanceReplicaSet`: so many instances of one template, whichever they are.
//!
//! ```text
//!   VirtualMachineInstanceReplicaSet (template, how many, selector) ──makes, adopts, ends──► VirtualMachineInstances
//! ```
//!
//! Its instances are those that its selector selects and that no other object controls. One that ends is replaced.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use kube::core::{ParseExpressionError, Selector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Extra;
use crate::condition::Condition;
use crate::vm::Template;

/// How many instances there are to be where a set does not say.
pub const DEFAULT_REPLICAS: i32 = 1;

/// VirtualMachineInstanceReplicaSet keeps a number of virtual machines of one template running.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachineInstanceReplicaSet",
    plural = "virtualmachineinstancereplicasets",
    singular = "virtualmachineinstancereplicaset",
    shortname = "vmirs",
    shortname = "vmirss",
    category = "all",
    namespaced,
    status = "VirtualMachineInstanceReplicaSetStatus",
    derive = "PartialEq",
    doc = "VirtualMachineInstanceReplicaSet keeps a number of virtual machines of one template running."
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceReplicaSetSpec {
    /// How many instances there are to be; 1 where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Which instances belong to the set. It has to select what is made from the template.
    pub selector: LabelSelector,
    /// What the instances are made from. Its metadata's name, or generateName, or else the name of the set, begins theirs.
    pub template: Template,
    /// While true, instances are neither made nor ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What is observed of a set and its instances.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceReplicaSetStatus {
    /// Instances that have neither ended nor are being ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Those of them that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// What holds of the set: ReplicaPaused, ReplicaFailure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The selector as a text: what autoscalers ask the scale subresource for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<String>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

// === impl VirtualMachineInstanceReplicaSet ===

impl VirtualMachineInstanceReplicaSet {
    /// How many instances there are to be.
    pub fn replicas(&self) -> usize {
        let wanted = self.spec.replicas.unwrap_or(DEFAULT_REPLICAS);
        usize::try_from(wanted).unwrap_or(0)
    }

    /// Whether instances are neither made nor ended for now.
    pub fn is_paused(&self) -> bool {
        self.spec.paused == Some(true)
    }

    /// Which instances belong to it.
    ///
    /// # Errors
    /// It has an operator that there is not, or one without the values that it needs.
    pub fn selector(&self) -> Result<Selector, ParseExpressionError> {
        self.spec.selector.clone().try_into()
    }

    /// What the names of its instances begin with, as with KubeVirt.
    pub fn basename(&self) -> &str {
        let metadata = self.spec.template.metadata.as_ref();
        let named = metadata.and_then(|metadata| metadata.name.as_deref().filter(|name| !name.is_empty()));
        let generated = metadata.and_then(|metadata| metadata.generate_name.as_deref());
        let own = self.metadata.name.as_deref().unwrap_or_default();
        named.or(generated.filter(|name| !name.is_empty())).unwrap_or(own)
    }
}
