//! A VirtualMachineInstanceReplicaSet keeps as many machines as it is asked for, in local mode and behind a real kube-apiserver; and the
//! KubeVirt that tools look for is there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Api, Cluster, HandlerSetup, Kubectl, Manifest, Tools};
use serde_json::{Value, json};

const NAME: &str = "web";

/// A set of the demo guest.
fn set(replicas: u32) -> Manifest {
    let Manifest(demo) = Manifest::demo().unwrap();
    let metadata = json!({"labels": {"app": NAME}, "annotations": demo["metadata"]["annotations"]});
    Manifest(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet", "metadata": {"name": NAME},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": NAME}},
            "template": {"metadata": metadata, "spec": demo["spec"]},
        },
    }))
}

/// Waits until this holds of the set, and returns it.
fn await_set(kubectl: &Kubectl, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let found = eventually(what, || {
        let set = kubectl.get(&["vmirs", NAME])?;
        let status = set["status"].to_string();
        Ok(Look::of(holds(&set).then_some(set), || status))
    });
    found.unwrap()
}

fn counts(set: &Value, replicas: u32, ready: u32) -> bool {
    set["status"]["replicas"] == replicas && set["status"]["readyReplicas"] == ready
}

fn instances(kubectl: &Kubectl) -> Vec<Value> {
    let found = kubectl.get(&["vmi", "-l", "app=web"]).unwrap();
    found["items"].as_array().unwrap().clone()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn scale(kubectl: &Kubectl, replicas: u32) {
    let replicas = format!("--replicas={replicas}");
    kubectl.ok(&["scale", "vmirs", NAME, &replicas]).unwrap();
}

/// What a set does wherever it is.
fn keeps_its_number(kubectl: &Kubectl) {
    kubectl.apply(&[set(1)]).unwrap();
    let running = await_set(kubectl, "one that is ready", |set| counts(set, 1, 1));
    assert_eq!(running["status"]["labelSelector"], "app=web");
    let first = instances(kubectl).remove(0);
    assert!(name(&first).starts_with(NAME) && name(&first).len() == NAME.len() + 5);
    let owner = &first["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["controller"]),
        (&json!("VirtualMachineInstanceReplicaSet"), &json!(true))
    );

    // One that is taken away is replaced.
    kubectl
        .ok(&["delete", "vmi", name(&first), "--timeout=120s"])
        .unwrap();
    let replaced = eventually("another instance", || {
        let found = instances(kubectl);
        let other = found.iter().any(|vmi| name(vmi) != name(&first));
        Ok(Look::of(other.then_some(found), || "none yet".to_owned()))
    });
    assert_eq!(replaced.unwrap().len(), 1);

    // A paused one is not; what it missed is done when it goes on.
    let pause = |paused: bool| {
        let patch = json!({"spec": {"paused": paused}}).to_string();
        kubectl
            .ok(&["patch", "vmirs", NAME, "--type=merge", "-p", &patch])
            .unwrap();
        await_set(kubectl, "pause", |set| {
            set["status"]["conditions"].is_array() == paused
        })
    };
    let paused = pause(true);
    assert_eq!(paused["status"]["conditions"][0]["type"], "ReplicaPaused");
    scale(kubectl, 2);
    assert_eq!(instances(kubectl).len(), 1);
    pause(false);
    await_set(kubectl, "two that are ready", |set| counts(set, 2, 2));

    // One that is labelled otherwise goes its own way.
    let strays = name(&instances(kubectl)[0]).to_owned();
    kubectl
        .ok(&["label", "vmi", &strays, "app=other", "--overwrite"])
        .unwrap();
    let left = eventually("one that is let go", || {
        let stray = kubectl.vmi(&strays)?;
        let owners = &stray["metadata"]["ownerReferences"];
        Ok(Look::of(owners.is_null().then_some(()), || owners.to_string()))
    });
    left.unwrap();
    kubectl.ok(&["delete", "vmi", &strays, "--timeout=120s"]).unwrap();

    let events = kubectl.events(NAME).unwrap();
    for reason in ["SuccessfulCreate", "SuccessfulPaused", "SuccessfulResumed"] {
        let wanted = ("Normal".to_owned(), reason.to_owned());
        assert!(events.contains(&wanted), "{reason}: {events:?}");
    }
    assert!(events.iter().all(|(kind, _)| kind == "Normal"), "{events:?}");
}

/// The object in which tools look.
fn is_deployed(kubectl: &Kubectl) {
    let found = eventually("KubeVirt", || {
        let all = kubectl.get(&["kubevirts", "-A"])?["items"].clone();
        let said = all.to_string();
        Ok(Look::of(
            (all[0]["status"]["phase"] == "Deployed").then_some(all),
            || said,
        ))
    });
    let all = found.unwrap();
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    let kubevirt = &all[0];
    assert_eq!(
        (name(kubevirt), &kubevirt["metadata"]["namespace"]),
        ("kubevirt", &json!("kubevirt"))
    );
    let status = &kubevirt["status"];
    assert_eq!(status["observedGeneration"], kubevirt["metadata"]["generation"]);
    for version in [
        "observedKubeVirtVersion",
        "targetKubeVirtVersion",
        "operatorVersion",
    ] {
        assert!(status[version].as_str().unwrap().starts_with("v1."), "{status}");
    }
    let wait = |condition: &str| {
        let condition = format!("--for=condition={condition}");
        kubectl
            .ok(&[
                "wait",
                "-n",
                "kubevirt",
                "kv/kubevirt",
                &condition,
                "--timeout=60s",
            ])
            .unwrap();
    };
    wait("Created");
    wait("Available");
    wait("Progressing=False");
    wait("Degraded=False");
    // A second one is not another installation.
    let second = json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "second"}, "spec": {}});
    kubectl.apply(&[Manifest(second)]).unwrap();
    let told = kubectl.ok(&[
        "wait",
        "kv/second",
        "--for=condition=Synchronized=False",
        "--timeout=60s",
    ]);
    assert!(told.unwrap().contains("condition met"));
    kubectl.ok(&["delete", "kv", "second"]).unwrap();
    kubectl
        .ok(&["delete", "kv", "-n", "kubevirt", "kubevirt"])
        .unwrap();
    kubectl
        .ok(&[
            "wait",
            "-n",
            "kubevirt",
            "kv/kubevirt",
            "--for=create",
            "--timeout=60s",
        ])
        .unwrap();
}

#[test]
fn a_replica_set_keeps_its_number_in_local_mode_and_takes_its_machines_along() {
    let tools = Tools::open().unwrap();
    let handler = HandlerSetup::local().start(&tools).unwrap();
    let kubectl = handler.kubectl().unwrap();
    is_deployed(&kubectl);
    keeps_its_number(&kubectl);
    kubectl.ok(&["delete", "vmirs", NAME, "--timeout=120s"]).unwrap();
    let gone = eventually("end of the machines", || {
        let left = instances(&kubectl).len();
        Ok(Look::of((left == 0).then_some(()), || format!("{left} are left")))
    });
    gone.unwrap();
}

#[test]
fn a_replica_set_keeps_its_number_behind_kube_apiserver() {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let _node = HandlerSetup::on_node(&cluster, "n1").start(&tools).unwrap();
    let _api = Api::start(&tools, &cluster).unwrap();
    let kubectl = cluster.kubectl();
    is_deployed(kubectl);
    keeps_its_number(kubectl);
    // No garbage collector runs here: what a set leaves is ended first.
    scale(kubectl, 0);
    await_set(kubectl, "none", |set| counts(set, 0, 0));
    kubectl.ok(&["delete", "vmirs", NAME, "--timeout=120s"]).unwrap();
}
