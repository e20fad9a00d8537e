//! Volumes that only a cluster has, on a node that is this machine: tokens of ServiceAccounts, and
//! PersistentVolumeClaims that the cluster has bound.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use rvm_e2e::guest;
use rvm_e2e::volumes::{LoopDevice, equip, folder, lines, out_of_sync, read, with_disk};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Cluster, Handler, HandlerSetup, Kubectl, Manifest, Tools};
use serde_json::{Value, json};

/// A cluster with one node, whose handler has these arguments too.
fn cluster_with_a_node(arguments: &[&str]) -> (Cluster, Handler) {
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let node = HandlerSetup::on_node(&cluster, "n1").with(arguments);
    let node = node.start(&tools).unwrap();
    (cluster, node)
}

/// Who the API says that this token is of.
fn known_as(kubectl: &Kubectl, token: &str) -> Value {
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {"token": token},
    });
    let answer = kubectl.feed(&["create", "-o", "json", "-f", "-"], &review.to_string());
    let answer: Value = serde_json::from_str(&answer.unwrap().ok().unwrap()).unwrap();
    answer["status"].clone()
}

#[test]
fn a_guest_has_what_lets_it_speak_to_the_cluster_as_its_service_account() {
    let (cluster, node) = cluster_with_a_node(&[]);
    let kubectl = cluster.kubectl();
    let account = json!({"serviceAccount": {"serviceAccountName": "robot"}});
    kubectl
        .apply(&[with_disk(guest::NAME, &account).unwrap()])
        .unwrap();
    // What a controller of Kubernetes publishes in each namespace.
    let nobody = "there is no ConfigMap 'kube-root-ca.crt' in the namespace";
    out_of_sync(kubectl, guest::NAME, nobody).unwrap();
    let authority = fs::read_to_string(cluster.authority().certificate()).unwrap();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": authority},
    });
    kubectl.apply(&[Manifest(map)]).unwrap();
    let missing = "there is no ServiceAccount 'robot' in the namespace";
    out_of_sync(kubectl, guest::NAME, missing).unwrap();
    kubectl.ok(&["create", "serviceaccount", "robot"]).unwrap();

    kubectl.await_phase(guest::NAME, "Running").unwrap();
    let mut console = guest::answers(node.rvm_on_terminal(&["console", guest::NAME]).unwrap()).unwrap();
    equip(&mut console).unwrap();
    assert_eq!(read(&mut console, "cfgdata", "namespace").unwrap(), "default");
    let seen = read(&mut console, "cfgdata", "ca.crt").unwrap();
    assert!(seen.lines().map(str::trim_end).eq(authority.lines()), "{seen}");
    let token = read(&mut console, "cfgdata", "token").unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));
    let known = known_as(kubectl, &token);
    assert_eq!(known["authenticated"], true, "{known}");
    assert_eq!(known["user"]["username"], "system:serviceaccount:default:robot");
    // It goes with its account, which is the way to take it from a guest.
    kubectl.ok(&["delete", "serviceaccount", "robot"]).unwrap();
    eventually("end of the token", || {
        let known = known_as(kubectl, &token);
        Ok(Look::of(known["authenticated"].is_null().then_some(()), || {
            known.to_string()
        }))
    })
    .unwrap();
}

/// A claim and its volume, bound to each other as the cluster's controller would have done.
fn bind(kubectl: &Kubectl, name: &str, (mode, node): (&str, &str), source: &Value) {
    let (modes, size) = (json!(["ReadWriteOnce"]), json!({"storage": "4Mi"}));
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {
            "accessModes": modes, "volumeMode": mode, "volumeName": name, "storageClassName": "",
            "resources": {"requests": size},
        },
    });
    kubectl.apply(&[Manifest(claim)]).unwrap();
    let holder = kubectl.get(&["pvc", name]).unwrap()["metadata"].clone();
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]);
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "accessModes": modes, "volumeMode": mode, "capacity": size,
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": holder["namespace"], "name": name, "uid": holder["uid"],
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
        },
    });
    let (kind, what) = source.as_object().unwrap().iter().next().unwrap();
    volume["spec"][kind] = what.clone();
    kubectl.apply(&[Manifest(volume)]).unwrap();
    let status = json!({"status": {"phase": "Bound", "capacity": size, "accessModes": modes}});
    let patch = ["--subresource=status", "--type=merge", "-p", &status.to_string()];
    kubectl
        .ok(&[&["patch", "pvc", name], &patch[..]].concat())
        .unwrap();
}

fn claim(name: &str) -> Value {
    json!({"persistentVolumeClaim": {"claimName": name}})
}

#[test]
fn a_vmi_runs_where_its_claims_disks_are_and_what_no_node_has_is_told() {
    let folder = folder().unwrap();
    let path = folder.path().to_str().unwrap();
    let allowed = ["--host-disk-dir", path, "--host-disk-dir", "/dev"];
    let (cluster, node) = cluster_with_a_node(&allowed);
    let kubectl = cluster.kubectl();
    let local = json!({"local": {"path": path}});
    bind(kubectl, "here", ("Filesystem", "n1"), &local);
    bind(kubectl, "there", ("Filesystem", "n2"), &local);
    let csi = json!({"csi": {"driver": "disks.example.com", "volumeHandle": "1"}});
    bind(kubectl, "driven", ("Block", "n1"), &csi);
    let early = with_disk("early", &claim("early")).unwrap();
    let driven = with_disk("driven", &claim("driven")).unwrap();
    let there = with_disk("there", &claim("there")).unwrap();
    kubectl.apply(&[early, driven, there]).unwrap();
    let missing = "there is no PersistentVolumeClaim 'early' in the namespace";
    out_of_sync(kubectl, "early", missing).unwrap();
    let driver = "the PersistentVolumeClaim 'driven' has a volume of the CSI driver 'disks.example.com'";
    out_of_sync(kubectl, "driven", driver).unwrap();
    let unbound = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "early"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "4Mi"}}},
    });
    kubectl.apply(&[Manifest(unbound)]).unwrap();
    out_of_sync(kubectl, "early", "the cluster has given it no PersistentVolume").unwrap();

    kubectl
        .apply(&[with_disk(guest::NAME, &claim("here")).unwrap()])
        .unwrap();
    kubectl.await_phase(guest::NAME, "Running").unwrap();
    let mut console = guest::answers(node.rvm_on_terminal(&["console", guest::NAME]).unwrap()).unwrap();
    assert_eq!(lines(&mut console, "cat /sys/block/vda/size").unwrap(), ["8192"]);
    console.ask("echo from one | dd of=/dev/vda conv=fsync").unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));
    let delete = ["delete", "vmi", guest::NAME, "--timeout=60s"];
    kubectl.ok(&delete).unwrap();

    let over = json!({"ephemeral": claim("here")});
    kubectl.apply(&[with_disk(guest::NAME, &over).unwrap()]).unwrap();
    kubectl.await_phase(guest::NAME, "Running").unwrap();
    let mut console = guest::answers(node.rvm_on_terminal(&["console", guest::NAME]).unwrap()).unwrap();
    assert_eq!(lines(&mut console, "head -n 1 /dev/vda").unwrap(), ["from one"]);
    console.ask("echo from two | dd of=/dev/vda conv=fsync").unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));
    kubectl.ok(&delete).unwrap();
    let disk = fs::read(folder.path().join("disk.img")).unwrap();
    assert!(disk.starts_with(b"from one\n"));

    // No node was the right one for this VMI so far.
    let there = kubectl.vmi("there").unwrap();
    assert_eq!(there["status"]["nodeName"], Value::Null, "{there}");
    cluster.add_node("n2").unwrap();
    let tools = Tools::open().unwrap();
    let other = HandlerSetup::on_node(&cluster, "n2").with(&allowed);
    let _other = other.start(&tools).unwrap();
    let there = kubectl.await_phase("there", "Running").unwrap();
    assert_eq!(there["status"]["nodeName"], "n2");
}

#[test]
fn a_claim_has_the_block_device_that_its_volume_names() {
    let folder = folder().unwrap();
    let image = folder.path().join("device.img");
    fs::write(&image, vec![0; 4 << 20]).unwrap();
    let Ok(device) = LoopDevice::over(&image) else {
        eprintln!("skipped: this user can make no loop device");
        return;
    };
    let (cluster, node) = cluster_with_a_node(&["--host-disk-dir", "/dev"]);
    let kubectl = cluster.kubectl();
    let path = json!({"hostPath": {"path": device.path(), "type": "BlockDevice"}});
    bind(kubectl, "device", ("Block", "n1"), &path);
    kubectl
        .apply(&[with_disk(guest::NAME, &claim("device")).unwrap()])
        .unwrap();
    kubectl.await_phase(guest::NAME, "Running").unwrap();
    let mut console = guest::answers(node.rvm_on_terminal(&["console", guest::NAME]).unwrap()).unwrap();
    console
        .ask("echo to the device | dd of=/dev/vda conv=fsync")
        .unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));
    kubectl
        .ok(&["delete", "vmi", guest::NAME, "--timeout=60s"])
        .unwrap();
    drop(device);
    assert!(fs::read(image).unwrap().starts_with(b"to the device\n"));
}
