//! Nodes that fall silent and nodes that are gone, in a real cluster: what the owner of a machine is told, and that nothing stays for ever.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_e2e::guest::NAME;
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Api, Cluster, HandlerSetup, Kubectl, Manifest, Tools};
use serde_json::Value;

/// Waits until the VMI's condition Ready has this status and this reason.
fn await_ready(kubectl: &Kubectl, status: &str, reason: Option<&str>) {
    eventually("condition Ready", || {
        let vmi = kubectl.vmi(NAME)?;
        let conditions = vmi["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ready = conditions.iter().find(|one| one["type"] == "Ready").cloned();
        let ready = ready.unwrap_or_default();
        let is_so = ready["status"] == status && ready["reason"].as_str() == reason;
        Ok(Look::of(is_so.then_some(()), || vmi["status"].to_string()))
    })
    .unwrap();
}

fn schedulable(kubectl: &Kubectl) -> Value {
    kubectl.get(&["node", "n1"]).unwrap()["metadata"]["labels"]["kubevirt.io/schedulable"].clone()
}

#[test]
fn whose_node_is_silent_is_told_so_and_has_failed_once_the_node_is_gone() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let setup = HandlerSetup::on_node(&cluster, "n1").with(&[
        "--heartbeat-interval",
        "1",
        "--heartbeat-stale-after",
        "3",
    ]);
    let mut node = setup.start(&tools).unwrap();
    let _api = Api::start_with(&tools, &cluster, &["--node-stale-after", "3"]).unwrap();
    let kubectl = cluster.kubectl();
    let labels = kubectl.get(&["node", "n1"]).unwrap()["metadata"]["labels"].clone();
    assert_eq!(labels["cpu-model.node.kubevirt.io/rv64"], "true");
    assert_eq!(labels["machine-type.node.kubevirt.io/virt"], "true");
    kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
    kubectl.await_phase(NAME, "Running").unwrap();

    node.kill().unwrap();
    await_ready(kubectl, "False", Some("NodeUnresponsive"));
    assert_eq!(schedulable(kubectl), "false");
    assert_eq!(kubectl.vmi(NAME).unwrap()["status"]["phase"], "Running");
    // It was the handler alone: it finds its machine.
    node.start().unwrap();
    await_ready(kubectl, "True", None);
    assert_eq!(schedulable(kubectl), "true");

    node.kill().unwrap();
    await_ready(kubectl, "False", Some("NodeUnresponsive"));
    kubectl.ok(&["delete", "node", "n1"]).unwrap();
    kubectl.await_phase(NAME, "Failed").unwrap();
    let vmi = kubectl.vmi(NAME).unwrap();
    assert_eq!(vmi["status"]["reason"], "NodeUnresponsive");
    // Its finalizer waits for nobody.
    kubectl.ok(&["delete", "vmi", NAME, "--timeout=60s"]).unwrap();
    // The node was not gone after all: what ran there has no owner any more, and ends.
    cluster.add_node("n1").unwrap();
    node.start().unwrap();
    eventually("end of all that the machine had", || {
        let left = node.leavings()?;
        Ok(Look::of(left.is_empty().then_some(()), || left.join("\n")))
    })
    .unwrap();
}
