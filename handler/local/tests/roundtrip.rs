//! KubeVirt's own objects, every field of them filled, through the local API: made, read, written again.
//!
//! Nobody can run such a machine: most values only say what they are. What a machine cannot be without is replaced by something that
//! can be run, and much of the rest is refused; but each refusal names its field, and what is left when those are gone comes back as
//! it was sent. The data lies beside the checkout (or where `RVM_SHARED` says); without it these tests
//! say so and pass.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::path::{Path, PathBuf};

use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use rvm_local::LocalApi;
use serde_json::{Value, json};

/// Refusals that one object may bring.
const MOST_REFUSALS: usize = 50;

fn filled(kind: &str) -> Option<Value> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("RVM_SHARED").map_or(beside, PathBuf::from);
    let path = shared.join(format!("kubevirt/roundtrip/kubevirt.io.v1.{kind}.json"));
    let Ok(text) = std::fs::read(&path) else {
        println!("skipped: no compatibility data in {}", path.display());
        return None;
    };
    let mut object: Value = serde_json::from_slice(&text).unwrap();
    let metadata = object["metadata"].as_object_mut().unwrap();
    // What only the server says, or would keep the object for ever.
    metadata.retain(|name, _| ["labels", "annotations"].contains(&name.as_str()));
    metadata.insert("name".to_owned(), json!("filled"));
    for spec in ["/spec", "/spec/template/spec"] {
        if let Some(spec) = object.pointer_mut(spec).filter(|spec| spec["domain"].is_object()) {
            make_runnable(spec);
        }
    }
    if object["kind"] == "VirtualMachine" {
        object["spec"]["runStrategy"] = json!("Manual");
        object["spec"].as_object_mut().unwrap().remove("running");
    }
    Some(object)
}

/// What a machine is never without, as it can be run.
fn make_runnable(spec: &mut Value) {
    spec["volumes"] =
        json!([{"name": "root", "containerDisk": {"image": "example/disk:1", "path": "/disk/it"}}]);
    spec["networks"] = json!([{"name": "default", "pod": {}}]);
    let domain = &mut spec["domain"];
    domain["memory"] = json!({"guest": "256Mi"});
    domain["cpu"] = json!({"cores": 2});
    domain["resources"] = json!({"requests": {"memory": "256Mi"}});
    domain["firmware"] = json!({"bootloader": {"efi": {"secureBoot": false}}});
    domain["devices"]["disks"] =
        json!([{"name": "root", "disk": {"bus": "virtio"}, "serial": "s", "bootOrder": 1}]);
    domain["devices"]["interfaces"] = json!([{"name": "default", "masquerade": {}}]);
}

/// `a.b[0].c` as a JSON pointer.
fn pointer(field: &str) -> String {
    format!("/{}", field.replace(['.', '['], "/").replace(']', ""))
}

/// Takes a field out; where it is not there, what should have it.
fn take_out(object: &mut Value, field: &str) {
    let mut path = pointer(field);
    while object.pointer(&path).is_none() {
        path.truncate(path.rfind('/').unwrap());
    }
    let (parent, last) = path.rsplit_once('/').expect(field);
    match object.pointer_mut(parent).unwrap() {
        Value::Object(fields) => drop(fields.remove(last)),
        Value::Array(items) => drop(items.remove(last.parse().unwrap())),
        other => panic!("{field} is in {other}"),
    }
}

/// Makes the object without what is refused of it; also says what was.
async fn accepted(api: &Api<DynamicObject>, mut object: Value) -> (Value, DynamicObject, Vec<String>) {
    let mut refused = Vec::new();
    loop {
        let made = serde_json::from_value(object.clone()).unwrap();
        match api.create(&PostParams::default(), &made).await {
            Ok(made) => return (object, made, refused),
            Err(kube::Error::Api(status)) => {
                assert_eq!(status.code, 422, "{status:?}");
                let causes = status.details.map(|details| details.causes).unwrap_or_default();
                let field = causes.last().unwrap().field.clone();
                take_out(&mut object, &field);
                refused.push(format!("{field}: {}", causes.last().unwrap().message));
                assert!(refused.len() < MOST_REFUSALS, "{refused:#?}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Everything that `sent` says, `found` says as well; what was filled in is more.
fn holds(found: &Value, sent: &Value, path: &str) {
    match (found, sent) {
        (Value::Object(found), Value::Object(sent)) => {
            for (name, value) in sent {
                holds(
                    found.get(name).unwrap_or(&Value::Null),
                    value,
                    &format!("{path}.{name}"),
                );
            }
        }
        (found, sent) => assert_eq!(found, sent, "{path}"),
    }
}

async fn goes_round(kind: &str, with_status: bool) {
    let Some(object) = filled(kind) else { return };
    let state = tempfile::tempdir().unwrap();
    let local = LocalApi::open(state.path(), rvm_local::kubevirt().unwrap(), &[]).unwrap();
    let kind = GroupVersionKind::gvk("kubevirt.io", "v1", kind);
    let api: Api<DynamicObject> =
        Api::namespaced_with(local.client(), "default", &ApiResource::from_gvk(&kind));
    let (sent, made, refused) = accepted(&api, object.clone()).await;
    println!("{} refused: {refused:#?}", refused.len());
    holds(&made.data["spec"], &sent["spec"], "spec");
    holds(&json!(made.metadata), &sent["metadata"], "metadata");

    // Its status is written with it, or by its own path.
    let mut told = made.clone();
    told.data["status"] = object["status"].clone();
    let params = PostParams::default();
    let told = match with_status {
        true => api.replace("filled", &params, &told).await.unwrap(),
        false => api.replace_status("filled", &params, &told).await.unwrap(),
    };
    assert_eq!(told.data["status"], object["status"]);

    // Who reads it and writes it back changes nothing.
    let read = api.get("filled").await.unwrap();
    let again = api
        .replace("filled", &PostParams::default(), &read)
        .await
        .unwrap();
    assert_eq!(again, read);
    let older = GroupVersionKind::gvk("kubevirt.io", "v1alpha3", &kind.kind);
    let older: Api<DynamicObject> =
        Api::namespaced_with(local.client(), "default", &ApiResource::from_gvk(&older));
    let shown = older.get("filled").await.unwrap();
    let again = older
        .replace("filled", &PostParams::default(), &shown)
        .await
        .unwrap();
    assert_eq!((&again.data, again.metadata), (&shown.data, read.metadata));
}

#[tokio::test]
async fn a_vmi_comes_back_as_it_was_sent() {
    goes_round("VirtualMachineInstance", true).await;
}

#[tokio::test]
async fn a_vm_comes_back_as_it_was_sent() {
    goes_round("VirtualMachine", false).await;
}

#[tokio::test]
async fn a_kubevirt_comes_back_as_it_was_sent() {
    goes_round("KubeVirt", false).await;
}
