//! The strings that KubeVirt's clients look for: labels, annotations, finalizers, conditions, reasons, events.

/// The API group of the objects.
pub const GROUP: &str = "kubevirt.io";
/// The API version of the objects.
pub const VERSION: &str = "v1";
/// The name of the collection.
pub const PLURAL: &str = "virtualmachineinstances";
/// The architecture that rvm runs.
pub const ARCHITECTURE: &str = "riscv64";
/// The machine type that rvm builds.
pub const MACHINE: &str = "virt";
/// How long a guest may take to shut down where its VMI does not say, in seconds.
pub const DEFAULT_GRACE_PERIOD_SECONDS: i64 = 30;

/// Labels on a VMI, its pod and its node.
pub mod labels {
    /// On a VMI: the node that it was handed to.
    pub const NODE_NAME: &str = "kubevirt.io/nodeName";
    /// On a pod: what it is (`virt-launcher`).
    pub const APP: &str = "kubevirt.io";
    /// On a pod: the UID of its VMI.
    pub const CREATED_BY: &str = "kubevirt.io/created-by";
    /// On a pod: the name of its VMI, cut to a label's length.
    pub const VMI_ID: &str = "vmi.kubevirt.io/id";
    /// On a pod: the same, as older versions of KubeVirt have it.
    pub const VM_NAME: &str = "vm.kubevirt.io/name";
    /// On a node: whether machines may be put there.
    pub const SCHEDULABLE: &str = "kubevirt.io/schedulable";
    /// On a node, before the name of an architecture: machines of it may be put there.
    pub const VM_ARCHITECTURE: &str = "kubevirt.io/vm-arch-";
    /// On a node, before the name of a machine type: it is built there.
    pub const MACHINE_TYPE: &str = "machine-type.node.kubevirt.io/";
    /// On a node: what runs guests there, `kvm` or `tcg`.
    pub const ACCELERATOR: &str = "rvm/accelerator";
    /// On a node: its architecture.
    pub const ARCHITECTURE: &str = "kubernetes.io/arch";
}

/// What the annotation [`annotations::FIRMWARE`] may name.
pub mod firmware {
    /// U-Boot: small and quick, keeps no variables.
    pub const UBOOT: &str = "uboot";
    /// EDK2: the reference implementation of UEFI.
    pub const EDK2: &str = "edk2";
    /// The author's own: the file that `spec.domain.firmware.kernelBoot.container` names is no kernel.
    pub const KERNEL_BOOT: &str = "kernelBoot";
}

/// Annotations on a VMI and its node.
pub mod annotations {
    /// On a VMI: the volume whose image is an ordinary one, booted as the guest's root file system.
    pub const ROOT_FILESYSTEM: &str = "rvm/root-filesystem";
    /// On a VMI that boots a disk: by which firmware, one of [`super::firmware`].
    pub const FIRMWARE: &str = "rvm/firmware";
    /// On a VMI that is to run in a pod: the pod's image, in place of the cluster's.
    pub const LAUNCHER_IMAGE: &str = "rvm/launcher-image";
    /// On a VMI: which handler took it, and that it is this VMI: `NODE/HANDLER/UID`.
    pub const CLAIM: &str = "rvm/claim";
    /// On a node: the id of the one handler that serves it.
    pub const HANDLER: &str = "rvm/handler";
    /// On a node: where its handler's gRPC API is reached: `HOST:PORT`, or `:PORT` at the node's own address.
    pub const HANDLER_ADDRESS: &str = "rvm/handler-address";
    /// On a node: when its handler was last alive.
    pub const HEARTBEAT: &str = "kubevirt.io/heartbeat";
    /// On a VMI of a VM: the VM's generation that it was made from.
    pub const VM_GENERATION: &str = "kubevirt.io/vm-generation";
    /// On a pod: its VMI's name.
    pub const DOMAIN: &str = "kubevirt.io/domain";
}

/// Finalizers on a VMI and a VM.
pub mod finalizers {
    /// On a VM, keeps it until its VMI is gone; on its VMI, keeps that until the VM's controller has seen how it ended.
    pub const VM_CONTROLLER: &str = "kubevirt.io/virtualMachineControllerFinalize";
    /// On a VM that is deleted with the propagation policy Orphan: its VMI stays.
    pub const ORPHAN: &str = "orphan";
    /// Keeps a claim's disk for as long as a VMI uses it.
    pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
    /// Keeps a deleted VMI until its machine is gone.
    pub const FOREGROUND_DELETE: &str = "kubevirt.io/foregroundDeleteVirtualMachine";
}

/// Types of conditions on a VMI and a VM.
pub mod conditions {
    /// On a VM: its VMI cannot be made.
    pub const FAILURE: &str = "Failure";
    /// On a VM: its VMI was made from another template than it has now.
    pub const RESTART_REQUIRED: &str = "RestartRequired";
    /// The guest runs.
    pub const READY: &str = "Ready";
    /// What was asked for and what is there are the same.
    pub const SYNCHRONIZED: &str = "Synchronized";
    /// The processors are stopped.
    pub const PAUSED: &str = "Paused";
    /// The machine can move to another node while it runs.
    pub const LIVE_MIGRATABLE: &str = "LiveMigratable";
    /// Its disks can move to another place while it runs.
    pub const STORAGE_LIVE_MIGRATABLE: &str = "StorageLiveMigratable";
    /// An agent in the guest answers.
    pub const AGENT_CONNECTED: &str = "AgentConnected";
    /// What the guest's agent was to set is set.
    pub const ACCESS_CREDENTIALS_SYNCHRONIZED: &str = "AccessCredentialsSynchronized";
    /// On a replica set: instances are neither made nor ended.
    pub const REPLICA_PAUSED: &str = "ReplicaPaused";
    /// On a replica set: an instance could not be made, or not be ended.
    pub const REPLICA_FAILURE: &str = "ReplicaFailure";
    /// On a KubeVirt: all that belongs to it was made.
    pub const CREATED: &str = "Created";
    /// On a KubeVirt: machines can be asked for.
    pub const AVAILABLE: &str = "Available";
    /// On a KubeVirt: it is being changed.
    pub const PROGRESSING: &str = "Progressing";
    /// On a KubeVirt: something of it is missing.
    pub const DEGRADED: &str = "Degraded";
    /// A node was found.
    pub const POD_SCHEDULED: &str = "PodScheduled";
    /// The guest is emulated, not run by the hardware.
    pub const SOFTWARE_EMULATION: &str = "SoftwareEmulation";
}

/// Reasons in conditions and in `status.reason`.
pub mod reasons {
    /// Ready is false: the VM has no VMI.
    pub const VMI_NOT_EXISTS: &str = "VMINotExists";
    /// Ready is false: the VM's VMI does not say.
    pub const VMI_CONDITION_MISSING: &str = "VMIConditionMissing";
    /// Synchronized is false: a claim that the machine needs is not there.
    pub const FAILED_PVC_NOT_FOUND: &str = "FailedPvcNotFound";
    /// Ready is false: no node runs it yet.
    pub const POD_NOT_EXISTS: &str = "PodNotExists";
    /// Ready is false: it is being ended.
    pub const POD_TERMINATING: &str = "PodTerminating";
    /// Ready is false: the guest does not run.
    pub const GUEST_NOT_RUNNING: &str = "GuestNotRunning";
    /// Synchronized is false: the machine could not be made.
    pub const FAILED_CREATE: &str = "FailedCreate";
    /// Synchronized is false: the machine could not be ended.
    pub const FAILED_DELETE: &str = "FailedDelete";
    /// A volume that was to come or to go does not.
    pub const FAILED_HOTPLUG_SYNC: &str = "FailedHotplugSync";
    /// Synchronized is false: the image cannot be had.
    pub const ERR_IMAGE_PULL: &str = "ErrImagePull";
    /// Synchronized is false: the image could not be had several times, so we wait before we ask again.
    pub const IMAGE_PULL_BACK_OFF: &str = "ImagePullBackOff";
    /// Synchronized is false for another reason.
    pub const SYNC_FAILED: &str = "Synchronizing with the Domain failed.";
    /// Paused: somebody asked for it.
    pub const PAUSED_BY_USER: &str = "PausedByUser";
    /// Paused: a disk could not do what the guest asked of it.
    pub const PAUSED_IO_ERROR: &str = "PausedIOError";
    /// LiveMigratable is false.
    pub const NOT_MIGRATABLE: &str = "NotMigratable";
    /// PodScheduled is false: no node fits.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// SoftwareEmulation: the host cannot run this architecture in hardware.
    pub const CROSS_ARCHITECTURE_EMULATION: &str = "CrossArchitectureEmulation";
    /// A replica set is paused.
    pub const PAUSED: &str = "Paused";
    /// A KubeVirt's parts were made.
    pub const ALL_RESOURCES_CREATED: &str = "AllResourcesCreated";
    /// A KubeVirt's parts are ready.
    pub const ALL_COMPONENTS_READY: &str = "AllComponentsReady";
    /// A KubeVirt is not the first one.
    pub const EXISTING_DEPLOYMENT: &str = "ExistingDeployment";
    /// The node's handler has been silent for too long.
    pub const NODE_UNRESPONSIVE: &str = "NodeUnresponsive";
}

/// Reasons of the events on a VMI and a VM.
pub mod events {
    /// The guest's agent has set keys and passwords.
    pub const ACCESS_CREDENTIALS_SYNC_SUCCESS: &str = "AccessCredentialsSyncSuccess";
    /// It has not; also the condition's reason.
    pub const ACCESS_CREDENTIALS_SYNC_FAILED: &str = "AccessCredentialsSyncFailed";
    /// No node can take a VMI.
    pub const FAILED_SCHEDULING: &str = "FailedScheduling";
    /// A VM's VMI was made.
    pub const SUCCESSFUL_CREATE: &str = "SuccessfulCreate";
    /// A VM's VMI could not be made.
    pub const FAILED_CREATE: &str = "FailedCreate";
    /// An instance of a replica set could not be ended.
    pub const FAILED_DELETE: &str = "FailedDelete";
    /// A replica set was paused.
    pub const SUCCESSFUL_PAUSED: &str = "SuccessfulPaused";
    /// A replica set goes on.
    pub const SUCCESSFUL_RESUMED: &str = "SuccessfulResumed";
    /// A VM's VMI was told to end.
    pub const SUCCESSFUL_DELETE: &str = "SuccessfulDelete";
    /// The machine was made.
    pub const CREATED: &str = "Created";
    /// The guest runs.
    pub const STARTED: &str = "Started";
    /// A disk could not do what the guest asked of it, and the machine was paused for that.
    pub const IO_ERROR: &str = "IOerror";
    /// A volume came while the machine runs.
    pub const VOLUME_READY: &str = "VolumeReady";
    /// A volume went while the machine runs.
    pub const VOLUME_UNPLUGGED: &str = "VolumeUnplugged";
    /// A volume that was to come or to go does not.
    pub const HOTPLUG_FAILED: &str = "HotplugFailed";
    /// The guest was asked to shut down.
    pub const SHUTTING_DOWN: &str = "ShuttingDown";
    /// The machine is being ended.
    pub const DELETED: &str = "Deleted";
    /// The guest shut down, or crashed.
    pub const STOPPED: &str = "Stopped";
    /// The machine could not be brought to what was asked for.
    pub const SYNC_FAILED: &str = "SyncFailed";
    /// An image is being pulled.
    pub const PULLING: &str = "Pulling";
    /// An image is here.
    pub const PULLED: &str = "Pulled";
    /// An image cannot be had.
    pub const FAILED: &str = "Failed";
    /// An image could not be had several times, so we wait before we ask again.
    pub const BACK_OFF: &str = "BackOff";
    /// The VMI was handed to a node.
    pub const SUCCESSFUL_HAND_OVER: &str = "SuccessfulHandOver";
    /// The machine starts without the pod's network, which its VMI had not asked for.
    pub const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";
    /// The processors were stopped.
    pub const PAUSED: &str = "Paused";
    /// The processors run again.
    pub const UNPAUSED: &str = "Unpaused";
}
