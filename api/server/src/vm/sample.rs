//! VMs and instances for the tests of this folder.

use rvm_types::hotplug::VolumeRequest;
use rvm_types::{VirtualMachine, VirtualMachineInstance};
use serde_json::json;

/// A VM of generation 3 with this strategy, held and settled.
pub fn machine(strategy: &str) -> VirtualMachine {
    let vm = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": {
            "name": "a", "namespace": "default", "uid": "vm-uid", "generation": 3, "resourceVersion": "7",
            "finalizers": ["kubevirt.io/virtualMachineControllerFinalize"],
        },
        "spec": {
            "runStrategy": strategy,
            "template": {
                "metadata": {"labels": {"kubevirt.io/vm": "a"}, "annotations": {"who": "me"}},
                "spec": {"domain": {"devices": {}, "memory": {"guest": "128Mi"}}},
            },
        },
        "status": {"runStrategy": strategy},
    });
    serde_json::from_value(vm).unwrap()
}

/// A request for a volume of this name, whose claim has it, too.
pub fn volume(name: &str) -> VolumeRequest {
    let options = json!({
        "name": name, "disk": {}, "volumeSource": {"persistentVolumeClaim": {"claimName": name}},
    });
    VolumeRequest::add(serde_json::from_value(options).unwrap()).unwrap()
}

/// Its instance in a phase, of the same generation.
pub fn instance(phase: &str) -> VirtualMachineInstance {
    let vmi = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {
            "name": "a", "namespace": "default", "uid": "vmi-uid",
            "annotations": {"kubevirt.io/vm-generation": "3"},
            "finalizers": [
                "kubevirt.io/virtualMachineControllerFinalize", "kubevirt.io/foregroundDeleteVirtualMachine",
            ],
            "ownerReferences": [{
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "a", "uid": "vm-uid", "controller": true,
            }],
        },
        "spec": {"domain": {"devices": {}, "memory": {"guest": "128Mi"}}},
        "status": {"phase": phase},
    });
    serde_json::from_value(vmi).unwrap()
}

/// The same, that has been Running.
pub fn ran(phase: &str) -> VirtualMachineInstance {
    let mut vmi = instance(phase);
    let status = vmi.status.as_mut().unwrap();
    status.phase_transition_timestamps = vec![rvm_types::status::PhaseTransition {
        phase: Some(rvm_types::Phase::Running),
        ..Default::default()
    }];
    vmi
}
