//! Claims of a real cluster in machines' pods: plugged into one that runs, brought by a driver, and block devices.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rvm_e2e::guest::NAME;
use rvm_e2e::installed::Installed;
use rvm_e2e::volumes::{await_volume, equip, lines, out_of_sync, sees};
use rvm_harness::Manifest;
use rvm_harness::node::{DRIVER, NODE};
use serde_json::{Value, json};

/// What every claim asks for, and every volume has.
const SIZE: &str = "8Mi";

/// A folder of the node for volumes.
fn folder(installed: &Installed, name: &str) -> PathBuf {
    installed.cluster().node().unwrap().put(name, &[]).unwrap()
}

/// A claim of this mode.
fn claim(name: &str, mode: &str, class: &str) -> Manifest {
    Manifest(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": mode, "storageClassName": class,
            "resources": {"requests": {"storage": SIZE}},
        },
    }))
}

/// A volume of the node's, which claims of this mode and class may have.
fn volume(name: &str, mode: &str, class: &str, source: &Value) -> Manifest {
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]}]);
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": mode, "storageClassName": class, "capacity": {"storage": SIZE},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
        },
    });
    let (kind, what) = source.as_object().unwrap().iter().next().unwrap();
    volume["spec"][kind] = what.clone();
    Manifest(volume)
}

fn local(folder: &Path) -> Value {
    json!({"local": {"path": folder}})
}

#[test]
fn full_a_volume_is_added_to_a_machine_in_a_pod_and_removed_from_it() {
    let installed = Installed::prepare().unwrap();
    let place = folder(&installed, "claims");
    let allowed = format!("handler.hostDiskDirs[0]={}", place.display());
    installed.install(&[&allowed]).unwrap();
    let kubectl = installed.kubectl();
    let volume = volume("data", "Filesystem", "", &local(&place));
    kubectl
        .apply(&[volume, claim("data", "Filesystem", ""), Manifest::demo().unwrap()])
        .unwrap();
    installed.await_running(NAME).unwrap();

    let rvm = |words: &[&str]| kubectl.run(&[&["rvm"], words].concat()).unwrap().ok();
    rvm(&["addvolume", NAME, "--volume-name=data", "--serial=DATA-1"]).unwrap();
    let ready = await_volume(kubectl, NAME, "data", Some("Ready"));
    let ready = ready.map_err(|error| error.context(installed.story())).unwrap();
    assert_eq!(
        (&ready["target"], &ready["size"]),
        (&json!("sda"), &json!(8 << 20))
    );
    let mut console = installed.console().unwrap();
    sees(&mut console, "sda", true).unwrap();
    let serial = "tail -c +5 /sys/block/sda/device/vpd_pg80; echo";
    assert_eq!(lines(&mut console, serial).unwrap(), ["DATA-1"]);
    console.ask("echo in a pod | dd of=/dev/sda conv=fsync").unwrap();
    rvm(&["removevolume", NAME, "--volume-name=data"]).unwrap();
    sees(&mut console, "sda", false).unwrap();
    await_volume(kubectl, NAME, "data", None).unwrap();
    let disk = place.join("disk.img");
    let disk = fs::read(&disk).unwrap();
    assert!(disk.starts_with(b"in a pod\n"));

    // It comes again, with what was written.
    rvm(&["addvolume", NAME, "--volume-name=data"]).unwrap();
    sees(&mut console, "sda", true).unwrap();
    assert_eq!(lines(&mut console, "head -n 1 /dev/sda").unwrap(), ["in a pod"]);
    console.leave().unwrap();
    let pod = installed.pod().unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
}

/// A StorageClass whose claims wait for a pod, and the driver of its volumes.
fn class(installed: &Installed, name: &str) {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
    });
    let driver = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER},
        "spec": {"attachRequired": false, "fsGroupPolicy": "File"},
    });
    installed
        .kubectl()
        .apply(&[Manifest(class), Manifest(driver)])
        .unwrap();
}

fn driven(handle: &str) -> Value {
    json!({"csi": {"driver": DRIVER, "volumeHandle": handle}})
}

#[test]
fn full_a_machine_has_the_disks_that_a_driver_brings_to_its_pod() {
    let installed = Installed::start(&[]).unwrap();
    let place = folder(&installed, "driven");
    let node = installed.cluster().node().unwrap();
    let driver = node.drive_disks(&place).unwrap();
    class(&installed, "driven");
    fs::create_dir(place.join("files")).unwrap();
    // What somebody left who has had the volume before leads nowhere.
    fs::create_dir(place.join("trap")).unwrap();
    symlink("/etc/passwd", place.join("trap/disk.img")).unwrap();
    fs::write(place.join("device"), vec![0; 8 << 20]).unwrap();
    let kubectl = installed.kubectl();
    let mut objects = Vec::new();
    for (name, mode) in [
        ("files", "Filesystem"),
        ("trap", "Filesystem"),
        ("device", "Block"),
    ] {
        objects.push(volume(name, mode, "driven", &driven(name)));
    }
    kubectl.apply(&objects).unwrap();
    let machine = |name: &str, claims: &[&str]| {
        Manifest::demo().unwrap().named(name).with(|vmi| {
            let spec = &mut vmi["spec"];
            for claim in claims {
                let volume = json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
                spec["volumes"].as_array_mut().unwrap().push(volume);
                let disk = json!({"name": claim, "serial": claim, "disk": {}});
                spec["domain"]["devices"]["disks"]
                    .as_array_mut()
                    .unwrap()
                    .push(disk);
            }
        })
    };
    // Without its claims there is no pod, and it is said why.
    kubectl.apply(&[machine(NAME, &["files", "device"])]).unwrap();
    out_of_sync(kubectl, NAME, "didn't find PVC files").unwrap();
    kubectl
        .apply(&[
            claim("files", "Filesystem", "driven"),
            claim("device", "Block", "driven"),
        ])
        .unwrap();
    installed.await_running(NAME).unwrap();
    let pod = installed.pod().unwrap();
    assert_eq!(pod["spec"]["securityContext"]["fsGroup"], 107);

    let mut console = installed.console().unwrap();
    equip(&mut console).unwrap();
    for disk in ["files", "device"] {
        let size = format!("cat /sys/block/$(basename $(by {disk}))/size");
        assert_eq!(lines(&mut console, &size).unwrap(), ["16384"], "{disk}");
        let write = format!("echo to the {disk} | dd of=$(by {disk}) conv=fsync");
        console.ask(&write).unwrap();
    }
    console.leave().unwrap();
    kubectl.ok(&["delete", "vmi", NAME, "--timeout=120s"]).unwrap();
    installed.await_no_pods().unwrap();
    let image = place.join("files/disk.img");
    assert!(fs::read(&image).unwrap().starts_with(b"to the files\n"));
    assert!(
        fs::read(place.join("device"))
            .unwrap()
            .starts_with(b"to the device\n")
    );

    // The next machine reads what the last one wrote.
    kubectl.apply(&[machine(NAME, &["device", "files"])]).unwrap();
    installed.await_running(NAME).unwrap();
    let mut console = installed.console().unwrap();
    equip(&mut console).unwrap();
    for disk in ["files", "device"] {
        let read = format!("head -n 1 $(by {disk})");
        assert_eq!(
            lines(&mut console, &read).unwrap(),
            [format!("to the {disk}")],
            "{disk}"
        );
    }
    console.leave().unwrap();
    kubectl.ok(&["delete", "vmi", NAME, "--timeout=120s"]).unwrap();

    kubectl
        .apply(&[
            claim("trap", "Filesystem", "driven"),
            machine("trapped", &["trap"]),
        ])
        .unwrap();
    out_of_sync(kubectl, "trapped", "leads over a symbolic link").unwrap();
    kubectl
        .ok(&["delete", "vmi", "trapped", "--timeout=120s"])
        .unwrap();
    installed.await_no_pods().unwrap();
    drop(driver);
}
