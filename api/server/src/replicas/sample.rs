//! Sets and instances for the tests of this folder.

use rvm_types::{VirtualMachineInstance, VirtualMachineInstanceReplicaSet};
use serde_json::{Value, json};

/// A set that selects `app=web` and wants so many.
pub fn set(replicas: i32) -> VirtualMachineInstanceReplicaSet {
    let set = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"name": "web", "namespace": "default", "uid": "set-uid", "resourceVersion": "7"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": {"who": "me"}},
                "spec": {"domain": {"devices": {}, "memory": {"guest": "128Mi"}}},
            },
        },
    });
    serde_json::from_value(set).unwrap()
}

fn vmi(name: &str, app: &str, phase: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": "default", "uid": format!("{name}-uid"), "labels": {"app": app}},
        "spec": {"domain": {"devices": {}, "memory": {"guest": "128Mi"}}},
        "status": {"phase": phase},
    })
}

/// An instance that it selects and nobody controls.
pub fn instance(name: &str, phase: &str) -> VirtualMachineInstance {
    serde_json::from_value(vmi(name, "web", phase)).unwrap()
}

/// One that has another label.
pub fn labelled(name: &str, app: &str) -> VirtualMachineInstance {
    serde_json::from_value(vmi(name, app, "Running")).unwrap()
}

/// One that it controls.
pub fn owned(name: &str, phase: &str) -> VirtualMachineInstance {
    let mut vmi = vmi(name, "web", phase);
    vmi["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet", "name": "web", "uid": "set-uid",
        "controller": true,
    }]);
    serde_json::from_value(vmi).unwrap()
}

/// One that it controls, which is ready.
pub fn ready(name: &str) -> VirtualMachineInstance {
    let mut vmi = serde_json::to_value(owned(name, "Running")).unwrap();
    vmi["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    serde_json::from_value(vmi).unwrap()
}
