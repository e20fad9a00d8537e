//! What the group says of itself: its versions, its resources, and which KubeVirt it is like.

use axum::Json;
use axum::response::{IntoResponse, Response};
use rvm_types::kubevirt::KUBEVIRT_VERSION;
use serde_json::{Value, json};

use super::answer::Refused;

/// The group's name.
pub const GROUP: &str = "subresources.kubevirt.io";
/// Its versions, the preferred one first. All answer the same.
pub const VERSIONS: [&str; 2] = ["v1", "v1alpha3"];

/// What there is below a machine: (resource, subresource, verb).
pub(crate) const RESOURCES: [(&str, &str, &str); 23] = [
    ("virtualmachineinstances", "addvolume", "update"),
    ("virtualmachineinstances", "console", "get"),
    ("virtualmachineinstances", "filesystemlist", "get"),
    ("virtualmachineinstances", "freeze", "update"),
    ("virtualmachineinstances", "guestosinfo", "get"),
    ("virtualmachineinstances", "pause", "update"),
    ("virtualmachineinstances", "portforward", "get"),
    ("virtualmachineinstances", "removevolume", "update"),
    ("virtualmachineinstances", "reset", "update"),
    ("virtualmachineinstances", "softreboot", "update"),
    ("virtualmachineinstances", "unfreeze", "update"),
    ("virtualmachineinstances", "unpause", "update"),
    ("virtualmachineinstances", "usage", "get"),
    ("virtualmachineinstances", "userlist", "get"),
    ("virtualmachineinstances", "vnc", "get"),
    ("virtualmachineinstances", "vnc/screenshot", "get"),
    ("virtualmachines", "addvolume", "update"),
    ("virtualmachines", "expand-spec", "get"),
    ("virtualmachines", "portforward", "get"),
    ("virtualmachines", "removevolume", "update"),
    ("virtualmachines", "restart", "update"),
    ("virtualmachines", "start", "update"),
    ("virtualmachines", "stop", "update"),
];

/// The group and its versions.
pub(crate) fn group() -> Value {
    let version = |version| json!({"groupVersion": format!("{GROUP}/{version}"), "version": version});
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": GROUP,
        "versions": VERSIONS.map(version), "preferredVersion": version(VERSIONS[0]),
    })
}

/// The kind of a resource's objects.
pub(crate) fn kind_of(resource: &str) -> &'static str {
    match resource {
        "virtualmachines" => "VirtualMachine",
        _ => "VirtualMachineInstance",
    }
}

pub(super) async fn resources(version: &'static str) -> Json<Value> {
    let resource = |(resource, subresource, verb)| {
        json!({
            "name": format!("{resource}/{subresource}"), "singularName": "", "namespaced": true,
            "kind": kind_of(resource), "verbs": [verb],
        })
    };
    let expand = json!({
        "name": "expand-vm-spec", "singularName": "", "namespaced": true, "kind": "VirtualMachine", "verbs": ["update"],
    });
    let resources: Vec<Value> = RESOURCES.into_iter().map(resource).chain([expand]).collect();
    Json(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{version}"),
        "resources": resources,
    }))
}

pub(super) async fn version() -> Json<Value> {
    Json(json!({
        "gitVersion": KUBEVIRT_VERSION, "gitCommit": concat!("rvm-", env!("CARGO_PKG_VERSION")), "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    }))
}

pub(super) async fn healthy() -> &'static str {
    "ok"
}

/// KubeVirt says here which image its own tools for guests' disks are in; we have none.
pub(super) async fn guestfs() -> Response {
    Refused::without("rvm brings no image of libguestfs-tools").into_response()
}

/// What is not there yet is not there: virtctl prints so.
pub(super) async fn nothing() -> Response {
    Refused::no_such_path().into_response()
}
