//! The object itself: `VirtualMachineInstance` and its spec.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Extra;
use crate::config::AccessCredential;
use crate::domain::Domain;
use crate::names::DEFAULT_GRACE_PERIOD_SECONDS;
use crate::names::annotations::{FIRMWARE, ROOT_FILESYSTEM, VM_GENERATION};
use crate::names::firmware::KERNEL_BOOT;
use crate::phase::Phase;
use crate::status::VirtualMachineInstanceStatus;
use crate::volume::{Network, Volume};

/// `spec.startStrategy` of a machine whose processors start stopped: the only one that there is, besides none.
pub const START_PAUSED: &str = "Paused";

/// VirtualMachineInstance is one running virtual machine: created to start it, deleted to end it.
#[derive(CustomResource, Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachineInstance",
    plural = "virtualmachineinstances",
    singular = "virtualmachineinstance",
    shortname = "vmi",
    shortname = "vmis",
    category = "all",
    namespaced,
    status = "VirtualMachineInstanceStatus",
    derive = "PartialEq",
    doc = "VirtualMachineInstance is one running virtual machine: created to start it, deleted to end it."
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceSpec {
    /// The architecture of the guest. Only riscv64 can be run, which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// The machine: processors, memory, devices, firmware.
    pub domain: Domain,
    /// What the disks of the machine are made from, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// What the interfaces of the machine are attached to, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// Labels that a node must carry to run this machine.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// The guest's host name; the object's name where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Second part of the guest's fully qualified name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<String>,
    /// How long the guest may take to shut down before it is cut off; 30 seconds by default, 0 cuts it off at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<i64>,
    /// What a node drain does with this machine: None, LiveMigrate, LiveMigrateIfPossible or External.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction_strategy: Option<String>,
    /// Paused: start with the processors stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_strategy: Option<String>,
    /// What lets people into the guest: SSH keys, by way of a cloud-init volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_credentials: Vec<AccessCredential>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

impl VirtualMachineInstance {
    /// The phase that was written last; none before the first.
    pub fn phase(&self) -> Option<&Phase> {
        self.status.as_ref()?.phase.as_ref()
    }

    /// Whether a node with these labels has all that it asks of one.
    pub fn suits(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut selector = self.spec.node_selector.iter();
        selector.all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The ControllerRevision that holds what its VirtualMachine was when this was made; none where it has no VirtualMachine.
    pub fn revision_name(&self) -> Option<String> {
        let owners = self.metadata.owner_references.iter().flatten();
        let mut controllers = owners.filter(|owner| owner.controller == Some(true));
        let vm = controllers.find(|owner| owner.kind == "VirtualMachine")?;
        let generation = self.metadata.annotations.as_ref()?.get(VM_GENERATION)?;
        Some(crate::vm::revision_name(&vm.uid, generation.parse().ok()?))
    }

    /// The node that runs the machine, or ran it.
    pub fn node_name(&self) -> Option<&str> {
        self.status
            .as_ref()?
            .node_name
            .as_deref()
            .filter(|node| !node.is_empty())
    }

    /// The volume whose image is booted as the guest's root file system, if the annotation names one.
    pub fn root_filesystem(&self) -> Option<&str> {
        self.metadata
            .annotations
            .as_ref()?
            .get(ROOT_FILESYSTEM)
            .map(String::as_str)
    }

    /// The firmware that is to boot its disks, if the annotation names one.
    pub fn firmware(&self) -> Option<&str> {
        self.metadata
            .annotations
            .as_ref()?
            .get(FIRMWARE)
            .map(String::as_str)
    }

    /// Whether the file that `kernelBoot.container` names is a firmware, which boots its disks.
    pub fn brings_firmware(&self) -> bool {
        self.firmware() == Some(KERNEL_BOOT)
    }

    /// Whether what its firmware notes is to be there at the next boot.
    pub fn keeps_efi_variables(&self) -> bool {
        let firmware = self.spec.domain.firmware.as_ref();
        let bootloader = firmware.and_then(|firmware| firmware.bootloader.as_ref());
        let efi = bootloader.and_then(|bootloader| bootloader.efi.as_ref());
        efi.is_some_and(|efi| efi.persistent == Some(true))
    }

    /// Whether its processors stand still at first, until it is unpaused.
    pub fn starts_paused(&self) -> bool {
        self.spec.start_strategy.as_deref() == Some(START_PAUSED)
    }

    /// How long the guest may take to shut down.
    pub fn grace_period(&self) -> Duration {
        let seconds = self
            .spec
            .termination_grace_period_seconds
            .unwrap_or(DEFAULT_GRACE_PERIOD_SECONDS);
        Duration::from_secs(seconds.max(0).unsigned_abs())
    }

    /// Whether the machine has a serial console; it has, unless its author says otherwise.
    pub fn has_serial_console(&self) -> bool {
        self.spec.domain.devices.autoattach_serial_console != Some(false)
    }
}
