//! A VMI in a real cluster: from `kubectl apply` to a console and to its end, on a node that is this machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use rvm_e2e::guest::{self, NAME};
use rvm_harness::{Cluster, Handler, HandlerSetup, Tools};

/// A cluster with one node.
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
fn a_vmi_goes_from_its_manifest_to_a_console_and_leaves_nothing() {
    let (tools, cluster, node) = cluster_with_a_node();
    let kubectl = cluster.kubectl();
    let manifest = tools.source("guests/vmi-alpine.yaml");
    kubectl.ok(&["apply", "-f", manifest.to_str().unwrap()]).unwrap();

    let vmi = kubectl.await_phase(NAME, "Running").unwrap();
    assert_eq!(vmi["status"]["nodeName"], "n1");
    assert_eq!(
        guest::phases(kubectl).unwrap(),
        ["Pending", "Scheduling", "Scheduled", "Running"]
    );
    assert_eq!(
        guest::condition(kubectl, "Ready").unwrap().as_deref(),
        Some("True")
    );
    assert_eq!(
        guest::condition(kubectl, "SoftwareEmulation").unwrap().as_deref(),
        Some("True")
    );

    let console = guest::answers(node.rvm_on_terminal(&["console", NAME]).unwrap()).unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));
    assert_eq!(
        kubectl.events(NAME).unwrap(),
        [
            ("Normal".into(), "Created".into()),
            ("Normal".into(), "Started".into())
        ]
    );

    let (uid, process) = (uid(&vmi), process(node.pid(&uid(&vmi)).unwrap()));
    assert!(process.exists());
    kubectl.ok(&["delete", "vmi", NAME, "--timeout=60s"]).unwrap();
    assert_eq!(kubectl.phase(NAME).unwrap(), None);
    assert!(!process.exists());
    assert!(!node.run_dir_entries().unwrap().contains(&uid));
    assert_eq!(node.disks().unwrap(), [""; 0]);
}

fn process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}
