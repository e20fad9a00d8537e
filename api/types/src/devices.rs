//! What the guest finds on its buses: disks, interfaces, random numbers, the console.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Extra;

/// Disks, interfaces and the other devices that the guest sees.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Devices {
    /// Disks, each made from the volume of its name. A volume that no disk names gets one of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Network interfaces, each attached to the network of its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// A source of random numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rng: Option<Rng>,
    /// Whether the serial console is there; it is by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoattach_serial_console: Option<bool>,
    /// Whether what the guest prints on its console is kept on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_serial_console: Option<bool>,
    /// Whether there is a display. rvm has none; the field is accepted and changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoattach_graphics_device: Option<bool>,
    /// Whether a memory balloon is there, by which the guest tells of its memory and gives back pages that it does not use; it is by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoattach_mem_balloon: Option<bool>,
    /// Whether a machine that names no network gets the pod's, where its node has one; it does by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoattach_pod_interface: Option<bool>,
    /// Whether nothing can be plugged in while the machine runs: it has no SCSI controller then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_hotplug: Option<bool>,
    /// Whether a network interface has a pair of queues for each processor of the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_interface_multiqueue: Option<bool>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A disk, made from the volume of its name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// The name of the volume that it is made from.
    #[schemars(length(min = 1))]
    pub name: String,
    /// A disk that can be written; what is meant where no kind is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskTarget>,
    /// A disk that can only be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdrom: Option<CdromTarget>,
    /// What the guest reads back as the disk's serial number, 20 bytes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The order in which firmware tries the disks; it counts from 1. The guest finds the disks in that order, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_order: Option<u64>,
    /// none (past the node's page cache, where its file system can), writethrough, or writeback, the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// What is done when the node cannot do what the guest asks of the disk: stop, the default, pauses the machine until it is
    /// resumed, and tries again then; report has the guest see the error; enospace is stop where a write finds no space, and
    /// report otherwise; ignore tells the guest that all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_policy: Option<String>,
    /// A hint that is accepted and changes nothing: native or threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<String>,
    /// A hint that is accepted and changes nothing.
    #[serde(
        default,
        rename = "dedicatedIOThread",
        skip_serializing_if = "Option::is_none"
    )]
    pub dedicated_io_thread: Option<bool>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A disk that can be written.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskTarget {
    /// virtio, which is the default, or scsi, which a disk needs that comes and goes while the machine runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// The guest may only read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A disk that can only be read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CdromTarget {
    /// virtio, which is the default, or scsi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// True by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readonly: Option<bool>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A network interface, attached to the network of its name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// The name of the network that it is attached to.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Behind the pod's address, by translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masquerade: Option<InterfaceMasquerade>,
    /// With the pod's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<InterfaceBridge>,
    /// virtio, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The interface's hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// The ports that are reached from outside; all where none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Translation behind the pod's address.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceMasquerade {
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A bridge that hands the pod's address to the guest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct InterfaceBridge {
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A source of random numbers, filled from the node's own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Rng {
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A port of the guest that is reached from outside.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// A name for it, unique in the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// TCP, which is the default, or UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The port's number, 1 to 65535.
    pub port: i32,
    /// Fields that are not modelled here.
    #[serde(flatten)]
    pub extra: Extra,
}
