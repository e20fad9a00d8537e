//! Who is who in a real cluster: a handler is more than its node's name, a cluster more than its URL, a claim more than a
//! status, and a handler may do what its account may and nothing else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use rvm_e2e::guest::{self, NAME};
use rvm_harness::patience::Look;
use rvm_harness::{Cluster, Handler, HandlerSetup, Manifest, Tools, eventually, runs};
use serde_json::json;

fn cluster_with_a_node() -> (Arc<Tools>, Cluster, Handler) {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let node = HandlerSetup::on_node(&cluster, "n1").start(&tools).unwrap();
    (tools, cluster, node)
}

fn uid(vmi: &serde_json::Value) -> String {
    vmi["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[test]
fn a_machine_goes_on_through_a_namesake_of_its_node_and_another_url_of_its_cluster() {
    let (tools, cluster, mut node) = cluster_with_a_node();
    let kubectl = cluster.kubectl();
    kubectl.apply(&[Manifest::demo().unwrap()]).unwrap();
    let uid = uid(&kubectl.await_phase(NAME, "Running").unwrap());
    let pid = node.pid(&uid).unwrap();

    let mut namesake = HandlerSetup::on_node(&cluster, "n1").prepare(&tools).unwrap();
    let refused = namesake.spawn().unwrap().wait().unwrap();
    assert_eq!(refused.code(), Some(1), "{}", namesake.log());
    let said = namesake.log();
    assert!(
        said.lines()
            .next_back()
            .is_some_and(|line| line.starts_with("rvm-handler: node 'n1' is served by another rvm-handler (")),
        "{said}"
    );
    assert!(!said.contains('\u{1b}'), "colours in a file: {said:?}");

    node.kill().unwrap();
    cluster.reach_by("localhost").unwrap();
    node.start().unwrap();
    // It answers by the handler that was started just now, so that one has it.
    let console = guest::answers(node.rvm_on_terminal(&["console", NAME]).unwrap()).unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));
    assert_eq!(kubectl.vmi(NAME).unwrap()["status"]["phase"], "Running");
    assert_eq!(node.pid(&uid).unwrap(), pid);
    kubectl.ok(&["delete", "vmi", NAME, "--timeout=60s"]).unwrap();
    assert!(!runs(pid));
    assert!(!node.run_dir_entries().unwrap().contains(&uid));
}

#[test]
fn a_status_that_a_user_wrote_is_not_believed() {
    let (_tools, cluster, node) = cluster_with_a_node();
    let kubectl = cluster.kubectl();
    // As `kubectl get -o yaml` of another VMI shows it, but for what the API server would not take.
    let copied = Manifest::demo().unwrap().with(|vmi| {
        vmi["metadata"]["annotations"]["rvm/claim"] =
            json!("n1/6f9619ff-8b86-4d01-b42d-00cf4fc964ff/6f9619ff-8b86-4d01-b42d-00cf4fc964fe");
        vmi["metadata"]["finalizers"] = json!(["kubevirt.io/foregroundDeleteVirtualMachine"]);
        vmi["status"] = json!({ "phase": "Running", "nodeName": "n1" });
    });
    kubectl
        .feed(&["create", "-f", "-"], &copied.text())
        .unwrap()
        .ok()
        .unwrap();
    let started = || {
        let vmi = kubectl.vmi(NAME)?;
        let phases = guest::phases(kubectl)?;
        Ok(Look::of(
            (phases == ["Pending", "Scheduling", "Scheduled", "Running"]).then_some(vmi.clone()),
            || vmi.to_string(),
        ))
    };
    let vmi = eventually("a machine that was started", started).unwrap();
    assert!(runs(node.pid(&uid(&vmi)).unwrap()));
    kubectl.ok(&["delete", "vmi", NAME, "--timeout=60s"]).unwrap();
}

#[test]
fn a_handlers_account_suffices_for_all_that_it_does_and_for_little_else() {
    let (tools, cluster, node) = cluster_with_a_node();
    let manifest = tools.source("guests/vmi-alpine.yaml");
    node.rvm(&["apply", "-f", manifest.to_str().unwrap(), "--wait"])
        .unwrap()
        .ok()
        .unwrap();
    let listed = node.rvm(&["get"]).unwrap().ok().unwrap();
    assert!(listed.contains(NAME) && listed.contains("Running"), "{listed}");
    node.rvm(&["stop", NAME]).unwrap().ok().unwrap();
    node.rvm(&["delete", NAME]).unwrap().ok().unwrap();
    let told: Vec<String> = cluster
        .kubectl()
        .events(NAME)
        .unwrap()
        .into_iter()
        .map(|(_, reason)| reason)
        .collect();
    assert!(
        ["Created", "Started", "Stopped"]
            .iter()
            .all(|reason| told.iter().any(|seen| seen == reason)),
        "{told:?}"
    );
    assert!(!node.log().contains("orbidden"), "{}", node.log());

    let account = "system:serviceaccount:rvm:rvm-handler";
    for (verb, what) in [
        ("list", "secrets"),
        ("update", "secrets"),
        ("create", "pods"),
        ("delete", "nodes"),
        ("create", "nodes"),
        ("update", "virtualmachineinstances.kubevirt.io"),
        ("list", "namespaces"),
        ("get", "namespaces/default"),
        ("escalate", "clusterroles"),
    ] {
        let may = cluster
            .kubectl()
            .run(&["auth", "can-i", verb, what, "--as", account])
            .unwrap();
        assert_eq!(
            (may.status(), may.text().trim()),
            (Some(1), "no"),
            "{verb} {what}"
        );
    }
}
