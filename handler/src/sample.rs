//! For tests: a VMI that runs, and what rvmm says of its machine.

use rvm_types::VirtualMachineInstance;
use rvmm_control::{Accelerator, Info, State};
use serde_json::{Value, json};

use crate::vm::VmId;

pub const UID: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

const FINALIZER: &str = "kubevirt.io/foregroundDeleteVirtualMachine";

/// A VMI as an API server gives it, with this status.
pub fn vmi_with(status: Value) -> VirtualMachineInstance {
    let mut object = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {
            "name": "vmi-alpine", "namespace": "default", "uid": UID, "resourceVersion": "7",
            "annotations": {"rvm/root-filesystem": "root"},
        },
        "spec": {
            "domain": {"devices": {}, "memory": {"guest": "128Mi"}},
            "volumes": [{"name": "root", "containerDisk": {"image": "docker.io/library/alpine:3.23"}}],
        },
    });
    object["status"] = status;
    serde_json::from_value(object).unwrap()
}

/// The id of node `a`'s handler.
pub const HANDLER: &str = "handler-of-a";

/// A VMI that this handler of this node has claimed, with this status.
pub fn claimed(node: &str, handler: &str, status: Value) -> VirtualMachineInstance {
    let mut vmi = vmi_with(status);
    let claim = format!("{node}/{handler}/{UID}");
    let annotations = vmi.metadata.annotations.get_or_insert_default();
    annotations.insert("rvm/claim".to_owned(), claim);
    vmi.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    vmi
}

/// A VMI of node `a` in this phase.
pub fn vmi_in(phase: &str) -> VirtualMachineInstance {
    claimed("a", HANDLER, json!({"phase": phase, "nodeName": "a"}))
}

pub fn deleted(mut vmi: VirtualMachineInstance) -> VirtualMachineInstance {
    vmi.metadata.deletion_timestamp = Some(rvm_types::condition::now());
    vmi.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    vmi
}

pub fn id() -> VmId {
    VmId::of(&vmi_with(json!({}))).unwrap()
}

pub fn info(state: State) -> Box<Info> {
    Box::new(Info {
        name: "vmi-alpine".to_owned(),
        uid: Some(UID.to_owned()),
        pid: 1,
        version: "0".to_owned(),
        accelerator: Accelerator::Kvm,
        accelerator_reason: "/dev/kvm answers".to_owned(),
        state,
        cpus: 2,
        memory_bytes: 128 << 20,
        resets: 0,
        uptime_seconds: 0,
        agent: false,
        devices: Vec::new(),
        disk_error: None,
    })
}
