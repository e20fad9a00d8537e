//! Volumes that come and go while a machine runs.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Api, Patch, PatchParams, PostParams};
use rvm_types::VirtualMachineInstance as Vmi;
use rvm_types::status::VolumeStatus;
use serde_json::{Value, json};

use crate::IMAGE;
use crate::node::Cluster;

fn claim(cluster: &Cluster, name: &str) {
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(cluster.client());
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    });
    let claim = serde_json::from_value(claim).unwrap();
    cluster
        .block_on(claims.create(&PostParams::default(), &claim))
        .unwrap();
    // What local mode's binder does.
    let bound = Patch::Merge(json!({"status": {"phase": "Bound", "capacity": {"storage": "1Mi"}}}));
    let params = PatchParams::default();
    let bound = cluster.block_on(claims.patch_status(name, &params, &bound));
    bound.unwrap();
}

/// From now on these are the volumes of a VMI, besides its root file system.
fn change(cluster: &Cluster, name: &str, claims: &[&str]) {
    let root = json!({"name": "root", "containerDisk": {"image": IMAGE}});
    let more = claims.iter().map(|claim| {
        json!({"name": format!("v-{claim}"), "persistentVolumeClaim": {"claimName": claim, "hotpluggable": true}})
    });
    let disks = claims
        .iter()
        .map(|claim| json!({"name": format!("v-{claim}"), "disk": {"bus": "scsi"}}));
    let (disks, volumes): (Value, Value) = (disks.collect(), [root].into_iter().chain(more).collect());
    let patch = json!({"spec": {"volumes": volumes, "domain": {"devices": {"disks": disks}}}});
    let (vmis, params) = (cluster.vmis(), PatchParams::default());
    let patch = Patch::Merge(patch);
    let changed = cluster.block_on(vmis.patch(name, &params, &patch));
    changed.unwrap();
}

fn told(vmi: &Vmi, volume: &str) -> Option<VolumeStatus> {
    let mut all = vmi.status.as_ref()?.volume_status.iter();
    all.find(|told| told.name == volume).cloned()
}

/// Waits until this is said of a volume; nothing where it is to be gone.
fn until(cluster: &Cluster, name: &str, volume: &str, phase: Option<&str>) -> Option<VolumeStatus> {
    let vmi = cluster.until(name, |vmi| {
        let told = vmi.and_then(|vmi| told(vmi, volume));
        told.as_ref()
            .map(|told| told.phase.as_deref().unwrap_or_default())
            == phase
    });
    told(&vmi.unwrap(), volume)
}

#[test]
fn a_volume_comes_to_a_machine_that_runs_is_there_for_the_next_handler_and_goes() {
    let cluster = Cluster::new();
    let node = cluster.node("a");
    cluster.create("vmi", IMAGE);
    cluster.until_phase("vmi", "Running");
    claim(&cluster, "data");
    change(&cluster, "vmi", &["data"]);
    let ready = until(&cluster, "vmi", "v-data", Some("Ready")).unwrap();
    assert_eq!((ready.target.as_str(), ready.size), ("sda", Some(1 << 20)));
    assert!(ready.hotplug_volume.is_some());
    let events = cluster.events("vmi", 3);
    let message = "Successfully attach hotplugged volume v-data to VM";
    let last = events.last().unwrap();
    assert_eq!((last.1.as_str(), last.2.as_str()), ("VolumeReady", message));

    node.kill();
    change(&cluster, "vmi", &[]);
    let _next = cluster.node("a");
    assert_eq!(until(&cluster, "vmi", "v-data", None), None);
    let events = cluster.events("vmi", 4);
    assert!(
        events.iter().any(|event| event.1 == "VolumeUnplugged"),
        "{events:?}"
    );
    assert!(events.iter().all(|event| event.0 == "Normal"), "{events:?}");
}

#[test]
fn a_volume_whose_claim_is_not_there_waits_with_the_reason_and_keeps_no_machine_from_running() {
    let cluster = Cluster::new();
    let _node = cluster.node("a");
    cluster.create("vmi", IMAGE);
    cluster.until_phase("vmi", "Running");
    claim(&cluster, "here");
    change(&cluster, "vmi", &["missing", "here"]);
    let waits = until(&cluster, "vmi", "v-missing", Some("Pending")).unwrap();
    assert_eq!(waits.target, "");
    until(&cluster, "vmi", "v-here", Some("Ready"));
    let vmi = cluster.until("vmi", |vmi| {
        vmi.and_then(|vmi| told(vmi, "v-missing"))
            .is_some_and(|told| told.reason.as_deref() == Some("FailedPvcNotFound"))
    });
    let told = told(&vmi.unwrap(), "v-missing").unwrap();
    let message = told.message.unwrap();
    assert!(
        message.contains("there is no PersistentVolumeClaim 'missing' in the namespace"),
        "{message}"
    );
    claim(&cluster, "missing");
    until(&cluster, "vmi", "v-missing", Some("Ready"));
}
