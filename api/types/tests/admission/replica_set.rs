//! A replica set is refused whose instances could not run, or would not be its own; a KubeVirt with fields that there are not.

use rvm_types::admission::{kubevirt, replica_set};
use rvm_types::{Cause, KubeVirt, VirtualMachineInstanceReplicaSet};
use serde_json::{Value, json};

use super::alpine;

fn set(change: impl FnOnce(&mut Value)) -> Value {
    let vmi = alpine();
    let metadata = json!({"labels": {"app": "web"}, "annotations": vmi["metadata"]["annotations"]});
    let mut set = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet", "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": metadata, "spec": vmi["spec"]},
        },
    });
    change(&mut set["spec"]);
    set
}

fn refused(change: impl FnOnce(&mut Value)) -> Vec<Cause> {
    let set: VirtualMachineInstanceReplicaSet = serde_json::from_value(set(change)).expect("fits the type");
    replica_set::validate(&set)
}

fn fields(causes: Vec<Cause>) -> Vec<String> {
    causes.into_iter().map(|cause| cause.field).collect()
}

#[test]
fn a_set_of_the_smallest_vmi_is_fit_to_run() {
    assert_eq!(refused(|_| {}), []);
}

#[test]
fn what_is_wrong_with_a_template_is_told_at_its_place() {
    let causes =
        refused(|spec| spec["template"]["spec"]["domain"]["devices"]["sound"] = json!({"name": "s"}));
    assert_eq!(fields(causes), ["spec.template.spec.domain.devices.sound"]);
}

#[test]
fn a_selector_selects_what_is_made_and_not_everything() {
    let selector = |selector: Value| fields(refused(|spec| spec["selector"] = selector));
    assert_eq!(selector(json!({})), ["spec.selector"]);
    assert_eq!(selector(json!({"matchLabels": {"app": "db"}})), ["spec.selector"]);
    let strange = json!({"matchExpressions": [{"key": "app", "operator": "Near", "values": ["web"]}]});
    assert_eq!(selector(strange), ["spec.selector"]);
    let expressed = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]});
    assert!(selector(expressed).is_empty());
}

#[test]
fn a_field_that_there_is_not_is_refused() {
    assert_eq!(
        fields(refused(|spec| spec["minReady"] = json!(1))),
        ["spec.minReady"]
    );
    assert_eq!(
        fields(refused(|spec| spec["replicas"] = json!(-1))),
        ["spec.replicas"]
    );
    let spec =
        json!({"imageTag": "v1", "image": "x", "configuration": {"cpuModel": "max", "cpuModell": "x"}});
    let kubevirt: KubeVirt = serde_json::from_value(json!({"metadata": {"name": "kubevirt"}, "spec": spec}))
        .expect("fits the type");
    let causes = kubevirt::validate(&kubevirt);
    assert_eq!(fields(causes), ["spec.image", "spec.configuration.cpuModell"]);
}
