//! Volumes that come and go while a guest runs, in local mode by `rvm addvolume` and in a cluster through kube-apiserver, emulated.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use rvm_e2e::guest::{self, NAME};
use rvm_e2e::machines::{SUBRESOURCES, await_word, machine};
use rvm_e2e::volumes::{await_volume, folder, lines, sees};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Api, Cluster, Console, Handler, HandlerSetup, Kubectl, Manifest, Tools};
use serde_json::{Value, json};

/// A claim of four mebibytes.
fn claim(name: &str, volume: Option<&str>) -> Manifest {
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "resources": {"requests": {"storage": "4Mi"}},
        },
    });
    if let Some(volume) = volume {
        claim["spec"]["volumeName"] = volume.into();
    }
    Manifest(claim)
}

fn console(handler: &Handler) -> Console {
    guest::answers(handler.rvm_on_terminal(&["console", NAME]).unwrap()).unwrap()
}

fn leave(console: Console) {
    assert_eq!(console.leave().unwrap().status(), Some(0));
}

fn has_condition(object: &Value, kind: &str) -> bool {
    let mut all = object["status"]["conditions"].as_array().into_iter().flatten();
    all.any(|condition| condition["type"] == kind)
}

/// Waits until these are the volumes of the machine's template, and nothing is asked for any more; the machine.
fn templated(kubectl: &Kubectl, volumes: &[&str]) -> Value {
    eventually(&format!("a machine with {volumes:?}"), || {
        let vm = kubectl.get(&["vm", NAME])?;
        let has = vm["spec"]["template"]["spec"]["volumes"].as_array();
        let has: Vec<_> = has.into_iter().flatten().map(|volume| &volume["name"]).collect();
        let settled = has == volumes && vm["status"]["volumeRequests"].is_null();
        Ok(Look::of(settled.then(|| vm.clone()), || vm.to_string()))
    })
    .unwrap()
}

#[test]
fn a_volume_that_rvm_adds_is_in_the_guest_at_once_and_after_a_restart_until_it_is_removed() {
    let tools = Tools::open().unwrap();
    let mut handler = HandlerSetup::local().start(&tools).unwrap();
    let kubectl = handler.kubectl().unwrap();
    let objects = [
        claim("data", None),
        claim("more", None),
        machine("Halted").unwrap(),
    ];
    kubectl.apply(&objects).unwrap();
    await_word(&kubectl, "Stopped").unwrap();

    // One that does not run has it in its template, and with that when it is started.
    let added = handler.rvm(&["addvolume", NAME, "--volume-name=data", "--serial=DATA-1"]);
    let added = added.unwrap().ok().unwrap();
    let said = format!("Successfully submitted add volume request to VM {NAME} for volume data");
    assert_eq!(added.trim_end(), said);
    templated(&kubectl, &["rootfs", "data"]);
    let started = handler.rvm(&["start", NAME, "--wait"]).unwrap().ok().unwrap();
    assert!(
        started.contains(&format!("VM {NAME} was scheduled to start")),
        "{started}"
    );
    assert_eq!(kubectl.phase(NAME).unwrap().as_deref(), Some("Running"));
    let ready = await_volume(&kubectl, NAME, "data", Some("Ready")).unwrap();
    assert_eq!(
        (&ready["target"], &ready["size"]),
        (&json!("sda"), &json!(4 << 20))
    );
    assert_eq!(ready["hotplugVolume"], json!({}), "{ready}");
    let root = kubectl.vmi(NAME).unwrap()["status"]["volumeStatus"].clone();
    assert_eq!(
        (&root[1]["name"], &root[1]["target"]),
        (&json!("rootfs"), &json!(""))
    );

    // What virtctl asks for by itself comes by the bus that guests are told of.
    handler
        .rvm(&["addvolume", NAME, "--volume-name=more", "--bus=virtio"])
        .unwrap()
        .ok()
        .unwrap();
    let more = await_volume(&kubectl, NAME, "more", Some("Ready")).unwrap();
    assert_eq!(more["target"], "sdb");

    let mut guest = console(&handler);
    sees(&mut guest, "sda", true).unwrap();
    let serial = "tail -c +5 /sys/block/sda/device/vpd_pg80; echo";
    assert_eq!(lines(&mut guest, serial).unwrap(), ["DATA-1"]);
    guest
        .ask("echo kept for ever | dd of=/dev/sda conv=fsync")
        .unwrap();

    // It is in the template, and the instance is what that would make.
    let vm = templated(&kubectl, &["rootfs", "data", "more"]);
    assert!(!has_condition(&vm, "RestartRequired"), "{vm}");
    let again = handler.rvm(&["addvolume", NAME, "--volume-name=data"]);
    let again = again.unwrap().error_text();
    assert!(
        again.contains("Unable to add volume [data] because volume with that name already exists"),
        "{again}"
    );

    sees(&mut guest, "sdb", true).unwrap();
    let remove = ["removevolume", NAME, "--volume-name=more", "--persist"];
    handler.rvm(&remove).unwrap().ok().unwrap();
    sees(&mut guest, "sdb", false).unwrap();
    leave(guest);
    let vm = templated(&kubectl, &["rootfs", "data"]);
    assert!(!has_condition(&vm, "RestartRequired"), "{vm}");

    // Whoever takes the machine over knows what it has.
    handler.kill().unwrap();
    handler.start().unwrap();
    let before = kubectl.vmi(NAME).unwrap()["metadata"]["uid"].clone();
    handler.rvm(&["restart", NAME]).unwrap().ok().unwrap();
    eventually("another instance with the volume", || {
        let vmi = kubectl.get(&["vmi"])?["items"][0].clone();
        let told = vmi["status"]["volumeStatus"].to_string();
        let found = vmi["metadata"]["uid"] != before && told.contains("\"Ready\"");
        Ok(Look::of(found.then_some(()), || told))
    })
    .unwrap();
    let mut guest = console(&handler);
    sees(&mut guest, "sda", true).unwrap();
    assert_eq!(
        lines(&mut guest, "head -n 1 /dev/sda").unwrap(),
        ["kept for ever"]
    );

    let remove = ["removevolume", NAME, "--volume-name=data", "--persist"];
    handler.rvm(&remove).unwrap().ok().unwrap();
    sees(&mut guest, "sda", false).unwrap();
    leave(guest);
    await_volume(&kubectl, NAME, "data", None).unwrap();
    templated(&kubectl, &["rootfs"]);
    let events = kubectl.events(NAME).unwrap();
    for reason in ["VolumeReady", "VolumeUnplugged"] {
        assert!(events.iter().any(|event| event.1 == reason), "{events:?}");
    }
}

/// A claim whose volume is a folder of the node, bound as the cluster's controller would have done.
fn bind(kubectl: &Kubectl, name: &str, folder: &Path) {
    kubectl.apply(&[claim(name, Some(name))]).unwrap();
    let holder = kubectl.get(&["pvc", name]).unwrap()["metadata"].clone();
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]);
    let size = json!({"storage": "4Mi"});
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": size, "local": {"path": folder},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": holder["namespace"], "name": name, "uid": holder["uid"],
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
        },
    });
    kubectl.apply(&[Manifest(volume)]).unwrap();
    let status = json!({"status": {"phase": "Bound", "capacity": size, "accessModes": ["ReadWriteOnce"]}});
    let status = status.to_string();
    let patch = [
        "patch",
        "pvc",
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ];
    kubectl.ok(&patch).unwrap();
}

#[test]
fn a_volume_is_added_to_an_instance_of_a_cluster_when_its_claim_can_be_had() {
    let folder = folder().unwrap();
    let path = folder.path().to_str().unwrap();
    let tools = Tools::open().unwrap();
    let cluster = Cluster::start(&tools).unwrap();
    cluster.add_node("n1").unwrap();
    let node = HandlerSetup::on_node(&cluster, "n1").with(&[
        "--host-disk-dir",
        path,
        "--grpc-listen",
        "127.0.0.1:0",
    ]);
    let node = node.start(&tools).unwrap();
    let api = Api::start(&tools, &cluster).unwrap();
    let kubectl = cluster.kubectl();
    api.await_available(kubectl).unwrap();
    kubectl.apply(&[Manifest::demo().unwrap().named(NAME)]).unwrap();
    kubectl.await_phase(NAME, "Running").unwrap();

    let put = |action: &str, body: Value| {
        let path = format!("{SUBRESOURCES}/virtualmachineinstances/{NAME}/{action}");
        kubectl
            .feed(&["replace", "--raw", &path, "-f", "-"], &body.to_string())
            .unwrap()
    };
    let add = json!({
        "name": "data", "disk": {"disk": {"bus": "scsi"}},
        "volumeSource": {"persistentVolumeClaim": {"claimName": "data"}},
    });
    put("addvolume", add).ok().unwrap();
    let waits = eventually("a reason to wait", || {
        let told = await_volume(kubectl, NAME, "data", Some("Pending")).unwrap();
        let found = told["reason"] == "FailedPvcNotFound";
        Ok(Look::of(found.then(|| told.clone()), || told.to_string()))
    })
    .unwrap();
    let message = waits["message"].as_str().unwrap();
    assert!(
        message.contains("there is no PersistentVolumeClaim 'data'"),
        "{message}"
    );
    bind(kubectl, "data", folder.path());
    await_volume(kubectl, NAME, "data", Some("Ready")).unwrap();

    let mut guest = console(&node);
    sees(&mut guest, "sda", true).unwrap();
    guest
        .ask("echo in a cluster | dd of=/dev/sda conv=fsync")
        .unwrap();
    put("removevolume", json!({"name": "data"})).ok().unwrap();
    sees(&mut guest, "sda", false).unwrap();
    leave(guest);
    await_volume(kubectl, NAME, "data", None).unwrap();
    let disk = fs::read(folder.path().join("disk.img")).unwrap();
    assert!(disk.starts_with(b"in a cluster\n"));
    let gone = put("removevolume", json!({"name": "data"})).error_text();
    assert!(
        gone.contains("Unable to remove volume [data] because it does not exist"),
        "{gone}"
    );
}
