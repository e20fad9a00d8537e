//! `VirtualMachine`: a machine that stays while its instances come and go, and says when there is to be one.
//!
//! ```text
//!   VirtualMachine (wish, template) ──start──► VirtualMachineInstance of the same name ──ends──► started again, or not
//! ```
//!
//! Whether one is to run is said by [`RunStrategy`]; who asks for a start or a stop without changing that leaves a
//! [`StateChangeRequest`] in the status.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::hotplug::VolumeRequest;
use crate::vmi::VirtualMachineInstanceSpec;
use crate::word::open_words;
use crate::{Extra, VirtualMachineInstance};

/// VirtualMachine keeps a virtual machine: it starts instances of it, and ends them.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachine",
    plural = "virtualmachines",
    singular = "virtualmachine",
    shortname = "vm",
    shortname = "vms",
    category = "all",
    namespaced,
    status = "VirtualMachineStatus",
    derive = "PartialEq",
    doc = "VirtualMachine keeps a virtual machine: it starts instances of it, and ends them."
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineSpec {
    /// Whether an instance is to run: true is the run strategy Always, false Halted. Deprecated; not together with runStrategy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// When an instance is to run: Always, RerunOnFailure, Manual, Halted or Once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_strategy: Option<RunStrategy>,
    /// What the instances are made from.
    pub template: Template,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What instances are made from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Labels and annotations of the instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMeta>,
    /// The machine.
    pub spec: VirtualMachineInstanceSpec,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Labels and annotations of the instances.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMeta {
    /// In a replica set, what the names of the instances begin with. The instance of a VirtualMachine has the name of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The same, where there is no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate_name: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

open_words! {
    /// When an instance is to run.
    RunStrategy {
        /// Always: one that ends is replaced.
        Always,
        /// Until it ends well: one that fails is replaced.
        RerunOnFailure,
        /// Only when somebody asks.
        Manual,
        /// Never.
        Halted,
        /// Once: one that ends is not replaced.
        Once,
    }
}

open_words! {
    /// What can be asked for.
    StateChange {
        /// An instance.
        Start,
        /// The end of one.
        Stop,
    }
}

/// What is observed of a machine and its instance.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineStatus {
    /// There is an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<bool>,
    /// The instance is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// For people: Stopped, Starting, Running and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub printable_status: Option<String>,
    /// What holds of the machine: Ready, Failure, RestartRequired, and those of its instance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What was asked for and not yet done, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state_change_requests: Vec<StateChangeRequest>,
    /// Volumes that were asked for, or asked to go, and are not in the template and the instance accordingly yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_requests: Vec<VolumeRequest>,
    /// Instances that ended before they ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_failure: Option<StartFailure>,
    /// The run strategy that was followed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_strategy: Option<RunStrategy>,
    /// The generation that the instance was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The generation of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_generation: Option<i64>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What somebody asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateChangeRequest {
    /// Start or Stop.
    pub action: StateChange,
    /// For Start, how: `paused: "true"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    /// For Stop, of which instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// Instances that ended before they ran.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartFailure {
    /// How many there were, one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_fail_count: Option<i32>,
    /// The UID of the last of them.
    #[serde(default, rename = "lastFailedVMIUID", skip_serializing_if = "Option::is_none")]
    pub last_failed_vmi_uid: Option<String>,
    /// When the next may be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_timestamp: Option<Time>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

// === impl VirtualMachine ===

impl VirtualMachine {
    /// When an instance is to run, by either of the two fields; never where neither is there.
    pub fn run_strategy(&self) -> RunStrategy {
        let running = self.spec.running.map(|running| {
            if running {
                RunStrategy::Always
            } else {
                RunStrategy::Halted
            }
        });
        self.spec
            .run_strategy
            .clone()
            .or(running)
            .unwrap_or(RunStrategy::Halted)
    }

    /// An instance as the template describes it, of the machine's name and namespace: what admission looks at.
    pub fn instance(&self) -> VirtualMachineInstance {
        let mut vmi = self.spec.template.instance();
        vmi.metadata.name = self.metadata.name.clone();
        vmi.metadata.namespace = self.metadata.namespace.clone();
        vmi
    }
}

// === impl Template ===

impl Template {
    /// An instance of it that has no name yet.
    pub fn instance(&self) -> VirtualMachineInstance {
        let meta = self.metadata.clone().unwrap_or_default();
        let some = |map: BTreeMap<String, String>| (!map.is_empty()).then_some(map);
        let mut vmi = VirtualMachineInstance::new("", self.spec.clone());
        vmi.metadata.name = None;
        vmi.metadata.labels = some(meta.labels);
        vmi.metadata.annotations = some(meta.annotations);
        vmi
    }
}

/// The name of the ControllerRevision that holds what a VM was in this generation, from its UID.
pub fn revision_name(uid: &str, generation: i64) -> String {
    format!("revision-start-vm-{uid}-{generation}")
}

// === impl StateChangeRequest ===

impl StateChangeRequest {
    /// The key in the data of a Start that asks for stopped processors.
    pub const PAUSED: &str = "paused";

    /// Asks for an instance.
    pub fn start() -> Self {
        Self {
            action: StateChange::Start,
            data: BTreeMap::new(),
            uid: None,
        }
    }

    /// Asks for the end of an instance.
    pub fn stop(uid: &str) -> Self {
        Self {
            action: StateChange::Stop,
            data: BTreeMap::new(),
            uid: Some(uid.to_owned()),
        }
    }

    /// Whether the instance that it asks for starts with stopped processors.
    pub fn is_paused(&self) -> bool {
        self.data.get(Self::PAUSED).is_some_and(|paused| paused == "true")
    }
}
