//! Claims of a real cluster in machines' pods: plugged into one that runs, brought by a driver, and block devices.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use rvm_e2e::guest::NAME;
use rvm_e2e::installed::Installed;
use rvm_e2e::volumes::{await_volume, lines, sees};
use rvm_harness::Manifest;
use rvm_harness::node::NODE;
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
    let disk = std::fs::read(&disk).unwrap();
    assert!(disk.starts_with(b"in a pod\n"));

    // It comes again, with what was written.
    rvm(&["addvolume", NAME, "--volume-name=data"]).unwrap();
    sees(&mut console, "sda", true).unwrap();
    assert_eq!(lines(&mut console, "head -n 1 /dev/sda").unwrap(), ["in a pod"]);
    console.leave().unwrap();
    let pod = installed.pod().unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
}
