//! What machines take, by either API.

use serde_json::{Value, json};

use crate::lab::Lab;

const LINES: &str = "NAME     CPU(cores)   CPU(%)   MEMORY(bytes)   MEMORY(%)
alpine   250m         12%      96Mi            75%
";

#[tokio::test]
async fn the_machines_that_run_are_shown_with_what_they_take() {
    let lab = Lab::new().await;
    lab.machine_in("Running");
    lab.api.put(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"namespace": "default", "name": "ended"},
        "spec": {"domain": {"devices": {}}}, "status": {"phase": "Succeeded", "nodeName": "n1"},
    }));
    assert_eq!(lab.ok(&["top"]).await, LINES);
    assert_eq!(lab.ok(&["top", "vmi/alpine"]).await, LINES);
    let json = lab.ok(&["top", "-A", "-o", "json", "--sort-by", "cpu"]).await;
    let json: Value = serde_json::from_str(&json).expect("it is JSON");
    let alpine = json!({
        "namespace": "default", "name": "alpine", "cpuMillicores": 250, "cpus": 2,
        "memoryBytes": 96 << 20, "guestMemoryBytes": 128 << 20,
    });
    assert_eq!(json, json!([alpine]));
    assert!(lab.error(&["top", "ended"]).await.contains("it has ended"));
    assert_eq!(lab.ok(&["top", "-n", "other", "-o", "json"]).await, "[]\n");
}

#[tokio::test]
async fn a_cluster_is_asked_below_the_machines_and_for_nothing_else() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let by = ["--kubeconfig", "state/kubeconfig"];
    assert_eq!(lab.ok(&[&["top"], &by[..]].concat()).await, LINES);
    let asked = std::mem::take(&mut *lab.asked.lock().expect("nobody panics"));
    let list = "GET /apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances";
    let usage =
        "GET /apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/alpine/usage";
    assert_eq!(asked, [list, usage, usage]);
    lab.machine_in("Scheduling");
    let early = lab.error(&[&["top", "alpine"], &by[..]].concat()).await;
    assert_eq!(early, "error: VMI is not running");
}
