//! VMIs and pods for the tests of this folder.

use k8s_openapi::api::core::v1::Pod;
use rvm_types::VirtualMachineInstance;
use serde_json::{Value, json};

/// A VMI of this spec, over one of 128 MiB, which nobody has looked at yet.
pub fn vmi(spec: Value) -> VirtualMachineInstance {
    with(spec, json!({}), json!({}))
}

/// The same with these metadata and this status over it.
pub fn with(spec: Value, metadata: Value, status: Value) -> VirtualMachineInstance {
    let mut vmi = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "vm", "namespace": "default", "uid": "vmi-uid", "resourceVersion": "7"},
        "spec": {"domain": {"devices": {}, "memory": {"guest": "128Mi"}}},
        "status": {},
    });
    let over = [("metadata", metadata), ("spec", spec), ("status", status)];
    let over = over.into_iter().map(|(field, value)| (field.to_owned(), value));
    json_patch::merge(&mut vmi, &Value::Object(over.collect()));
    serde_json::from_value(vmi).unwrap()
}

/// One in this phase, which a node has claimed.
pub fn claimed(phase: &str) -> VirtualMachineInstance {
    let claim = json!({"annotations": {"rvm/claim": "n1/handler/vmi-uid"}});
    with(json!({}), claim, json!({"phase": phase, "nodeName": "n1"}))
}

/// Its pod, with this over it.
pub fn pod(over: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {
            "name": "virt-launcher-vm-abcde", "namespace": "default", "uid": "pod-uid",
            "ownerReferences": [{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": "vm",
                                 "uid": "vmi-uid", "controller": true}],
        },
        "spec": {"containers": []},
        "status": {"phase": "Pending"},
    });
    json_patch::merge(&mut pod, over);
    serde_json::from_value(pod).unwrap()
}

/// One that runs on a node.
pub fn running() -> Pod {
    pod(&json!({
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }))
}
