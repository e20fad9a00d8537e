//! KubeVirt's `vmi-alpine-efi.yaml`, as it is there.

use rvm_harness::Manifest;
use serde_json::json;

/// What it is called.
pub const NAME: &str = "vmi-alpine-efi";
/// The image that it boots, in the registry that it names.
pub const REPOSITORY: &str = "kubevirt/alpine-container-disk-demo:devel";
/// The same with the registry.
pub const IMAGE: &str = "registry:5000/kubevirt/alpine-container-disk-demo:devel";

/// The manifest.
pub fn manifest() -> Manifest {
    Manifest(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"labels": {"special": NAME}, "name": NAME},
        "spec": {
            "domain": {
                "devices": {"disks": [{"disk": {"bus": "virtio"}, "name": "containerdisk"}]},
                "firmware": {"bootloader": {"efi": {"secureBoot": false}}},
                "memory": {"guest": "1Gi"}, "resources": {},
            },
            "terminationGracePeriodSeconds": 0,
            "volumes": [{"containerDisk": {"image": IMAGE}, "name": "containerdisk"}],
        },
    }))
}
