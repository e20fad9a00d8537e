//! What VMIs find on their disks, in local mode and emulated: every kind of volume, and a disk that firmware boots.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rvm_e2e::efi as vmi_alpine_efi;
use rvm_e2e::guest;
use rvm_e2e::volumes::{LoopDevice, equip, folder, lines, out_of_sync, read, with_disk};
use rvm_guests::{Cache, efi};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Console, HandlerSetup, Manifest, Tools};
use serde_json::{Value, json};

/// Bytes that the files of a folder take.
fn allocated(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().blocks() * 512)
        .sum()
}

/// What the volumes of [`many`] are made from.
fn objects() -> Vec<Manifest> {
    let long = "n".repeat(150);
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"Mixed.Case": "a setting", long: "long", "empty": ""}, "binaryData": {"bytes": "AAEC"},
    });
    let secret = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
    let objects = [
        map,
        secret("hidden", json!({"password": "sesame"})),
        secret("user", json!({"userdata": "#cloud-config\n# from a secret"})),
        secret(
            "ssh",
            json!({"key": "ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n"}),
        ),
    ];
    objects.into_iter().map(Manifest).collect()
}

/// The demo with a volume of each kind.
fn many(host: &Path) -> Manifest {
    let root = Manifest::demo().unwrap().0["spec"]["volumes"][0].clone();
    let field = |path: &str, field: &str| json!({"path": path, "fieldRef": {"fieldPath": field}});
    let volumes = json!([
        root,
        {"name": "scratch", "emptyDisk": {"capacity": "8Mi"}},
        {"name": "host", "hostDisk": {"path": host, "type": "DiskOrCreate", "capacity": "4Mi"}},
        {"name": "sealed", "emptyDisk": {"capacity": "1Mi"}},
        {"name": "settings", "configMap": {"name": "settings", "volumeLabel": "settings"}},
        {"name": "hidden", "secret": {"secretName": "hidden"}},
        {"name": "none", "configMap": {"name": "nowhere", "optional": true, "volumeLabel": "none"}},
        {"name": "about", "downwardAPI": {"volumeLabel": "about", "fields": [
            field("name", "metadata.name"), field("labels/all", "metadata.labels"), field("labels/app", "metadata.labels['app']"),
        ]}},
        {"name": "cloud", "cloudInitNoCloud": {"userData": "#cloud-config\n", "networkDataBase64": "dmVyc2lvbjogMgo="}},
        {"name": "drive", "cloudInitConfigDrive": {"secretRef": {"name": "user"}}},
    ]);
    let disks = json!([
        {"name": "scratch", "serial": "SCRATCH", "disk": {"bus": "virtio"}, "cache": "none"},
        {"name": "host", "serial": "HOST", "disk": {"bus": "virtio"}, "cache": "writethrough", "bootOrder": 1},
        {"name": "sealed", "serial": "SEALED", "disk": {"readonly": true}, "cache": "writeback"},
        {"name": "cloud", "serial": "CLOUD", "cdrom": {}},
    ]);
    Manifest::demo().unwrap().with(|vmi| {
        vmi["metadata"]["labels"] = json!({"app": "many"});
        vmi["spec"]["volumes"] = volumes;
        vmi["spec"]["domain"]["devices"]["disks"] = disks;
        vmi["spec"]["accessCredentials"] = json!([{"sshPublicKey": {
            "source": {"secret": {"secretName": "ssh"}}, "propagationMethod": {"noCloud": {}},
        }}]);
    })
}

#[test]
fn a_guest_reads_every_kind_of_volume_and_keeps_what_it_writes() {
    let tools = Tools::open().unwrap();
    let folder = folder().unwrap();
    let host = folder.path().join("host.img");
    let allowed = folder.path().to_str().unwrap();
    let handler = HandlerSetup::local()
        .with(&["--host-disk-dir", allowed])
        .start(&tools)
        .unwrap();
    let kubectl = handler.kubectl().unwrap();
    kubectl.apply(&objects()).unwrap();
    kubectl.apply(&[many(&host)]).unwrap();
    let vmi = kubectl.await_phase(guest::NAME, "Running").unwrap();
    let mut console = guest::answers(handler.rvm_on_terminal(&["console", guest::NAME]).unwrap()).unwrap();

    equip(&mut console).unwrap();
    assert_eq!(read(&mut console, "settings", "Mixed.Case").unwrap(), "a setting");
    assert_eq!(read(&mut console, "settings", &"n".repeat(150)).unwrap(), "long");
    assert_eq!(read(&mut console, "cfgdata", "password").unwrap(), "sesame");
    assert_eq!(read(&mut console, "about", "name").unwrap(), guest::NAME);
    let labels = lines(&mut console, "on about 'cat labels/all'").unwrap();
    assert_eq!(labels[0], "app=\"many\"", "{labels:?}");
    assert_eq!(read(&mut console, "about", "labels/app").unwrap(), "many");
    let metadata: Value = serde_json::from_str(&read(&mut console, "cidata", "meta-data").unwrap()).unwrap();
    let expected = json!({
        "instance-id": "vmi-alpine.default", "local-hostname": guest::NAME,
        "public-keys": {"0": "ssh-ed25519 AAAA one", "1": "ssh-ed25519 BBBB two"},
    });
    assert_eq!(metadata, expected);
    assert_eq!(
        read(&mut console, "cidata", "user-data").unwrap(),
        "#cloud-config"
    );
    assert_eq!(
        read(&mut console, "cidata", "network-config").unwrap(),
        "version: 2"
    );
    let user = read(&mut console, "config-2", "openstack/latest/user_data").unwrap();
    assert_eq!(user.lines().last(), Some("# from a secret"));
    let stat = lines(&mut console, "on settings 'stat -c %a-%s bytes empty .'").unwrap();
    assert_eq!(stat, ["444-3", "444-0", "555-2048"]);
    assert_eq!(lines(&mut console, "on none 'ls -A' | wc -l").unwrap(), ["0"]);

    for serial in ["SCRATCH", "HOST"] {
        console
            .ask(&format!(
                "echo kept-by-{serial} | dd of=$(by {serial}) conv=fsync"
            ))
            .unwrap();
        let kept = lines(&mut console, &format!("head -n 1 $(by {serial})")).unwrap();
        assert_eq!(kept, [format!("kept-by-{serial}")]);
    }
    let size = |serial: &str| format!("blockdev --getsize64 $(by {serial}); blockdev --getro $(by {serial})");
    assert_eq!(lines(&mut console, &size("SCRATCH")).unwrap(), ["8388608", "0"]);
    assert_eq!(lines(&mut console, &size("CLOUD")).unwrap().last().unwrap(), "1");
    assert_eq!(lines(&mut console, &size("SEALED")).unwrap(), ["1048576", "1"]);
    assert_eq!(lines(&mut console, "by HOST").unwrap(), ["/dev/vda"], "bootOrder");
    let caches =
        "cat /sys/block/vda/queue/write_cache $(by SEALED | sed 's,/dev,/sys/block,')/queue/write_cache";
    assert_eq!(
        lines(&mut console, caches).unwrap(),
        ["write through", "write back"]
    );
    assert_eq!(console.leave().unwrap().status(), Some(0));

    let uid = vmi["metadata"]["uid"].as_str().unwrap();
    let image = handler.run_dir().join(uid).join("hidden.iso");
    assert_eq!(fs::metadata(image).unwrap().permissions().mode() & 0o777, 0o600);
    kubectl
        .ok(&["delete", "vmi", guest::NAME, "--timeout=60s"])
        .unwrap();
    assert!(!handler.run_dir().join(uid).exists() && !handler.state_dir().join("disks").join(uid).exists());
    assert!(
        fs::read(host).unwrap().starts_with(b"kept-by-HOST"),
        "a host disk outlives its VMI"
    );
}

#[test]
fn a_volume_that_cannot_be_made_says_why() {
    let tools = Tools::open().unwrap();
    let folder = folder().unwrap();
    fs::write(folder.path().join("secret"), "x").unwrap();
    let inside = folder.path().join("inside");
    fs::create_dir(&inside).unwrap();
    std::os::unix::fs::symlink("../secret", inside.join("link")).unwrap();
    let allowed = inside.to_str().unwrap();
    let handler = HandlerSetup::local()
        .with(&["--host-disk-dir", allowed])
        .start(&tools)
        .unwrap();
    let kubectl = handler.kubectl().unwrap();
    let with = |name: &str, source: Value| {
        let mut volume = source;
        volume["name"] = json!("data");
        let vmi = Manifest::demo().unwrap().named(name);
        vmi.with(|vmi| vmi["spec"]["volumes"].as_array_mut().unwrap().push(volume))
    };
    let host = |path: &Path| json!({"hostDisk": {"path": path, "type": "Disk"}});
    let vmis = [
        with("outside", host(&folder.path().join("secret"))),
        with("link", host(&inside.join("link"))),
        with("missing", json!({"secret": {"secretName": "nowhere"}})),
        with(
            "image",
            json!({"containerDisk": {"image": "docker.io/library/alpine:3.23"}}),
        ),
    ];
    kubectl.apply(&vmis).unwrap();
    let said = |name: &str, why: &str| {
        let message = out_of_sync(&kubectl, name, why).unwrap();
        assert!(
            message.contains("volume 'data' cannot be made"),
            "{name}: {message}"
        );
    };
    said(
        "outside",
        "lies below no folder that is allowed for host disks on this node",
    );
    said("link", "leads over a symbolic link");
    said("missing", "there is no Secret 'nowhere' in the namespace");
    said("image", "no file found in folder /disk");
}

#[test]
fn a_claims_disk_outlives_its_vmis_stays_as_it_is_under_an_ephemeral_one_and_goes_with_its_claim() {
    let tools = Tools::open().unwrap();
    let handler = HandlerSetup::local().start(&tools).unwrap();
    let kubectl = handler.kubectl().unwrap();
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "8Mi"}}},
    });
    let own = json!({"persistentVolumeClaim": {"claimName": "data"}});
    kubectl.apply(&[with_disk("early", &own).unwrap()]).unwrap();
    let missing = "there is no PersistentVolumeClaim 'data' in the namespace";
    out_of_sync(&kubectl, "early", missing).unwrap();
    let reason = "jsonpath={.status.conditions[?(@.type=='Synchronized')].reason}";
    assert_eq!(
        kubectl.ok(&["get", "vmi", "early", "-o", reason]).unwrap(),
        "FailedPvcNotFound"
    );
    kubectl.ok(&["delete", "vmi", "early", "--timeout=60s"]).unwrap();
    kubectl
        .apply(&[Manifest(claim), with_disk(guest::NAME, &own).unwrap()])
        .unwrap();
    kubectl.await_phase(guest::NAME, "Running").unwrap();
    kubectl.apply(&[with_disk("second", &own).unwrap()]).unwrap();
    let wanted = format!(
        "the PersistentVolumeClaim 'data' is in use by the VMI '{}'",
        guest::NAME
    );
    out_of_sync(&kubectl, "second", &wanted).unwrap();
    kubectl.ok(&["delete", "vmi", "second", "--timeout=60s"]).unwrap();
    let mut console = guest::answers(handler.rvm_on_terminal(&["console", guest::NAME]).unwrap()).unwrap();
    console.ask("echo from one | dd of=/dev/vda conv=fsync").unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));
    let delete = ["delete", "vmi", guest::NAME, "--timeout=60s"];
    kubectl.ok(&delete).unwrap();

    let over = json!({"ephemeral": {"persistentVolumeClaim": {"claimName": "data"}}});
    kubectl.apply(&[with_disk(guest::NAME, &over).unwrap()]).unwrap();
    kubectl.await_phase(guest::NAME, "Running").unwrap();
    kubectl.ok(&["delete", "pvc", "data", "--wait=false"]).unwrap();
    let mut console = guest::answers(handler.rvm_on_terminal(&["console", guest::NAME]).unwrap()).unwrap();
    assert_eq!(lines(&mut console, "head -n 1 /dev/vda").unwrap(), ["from one"]);
    console.ask("echo from two | dd of=/dev/vda conv=fsync").unwrap();
    assert_eq!(lines(&mut console, "head -n 1 /dev/vda").unwrap(), ["from two"]);
    assert_eq!(console.leave().unwrap().status(), Some(0));
    let claims = handler.state_dir().join("claims");
    let folder = fs::read_dir(&claims).unwrap().next().unwrap().unwrap().path();
    assert!(
        fs::read(folder.join("disk.img"))
            .unwrap()
            .starts_with(b"from one\n")
    );
    kubectl.ok(&delete).unwrap();
    kubectl
        .ok(&["wait", "--for=delete", "pvc/data", "--timeout=60s"])
        .unwrap();
    assert_eq!(fs::read_dir(&claims).unwrap().count(), 0);
}

/// A file system of 3 MiB, for as long as this is held.
struct SmallFolder(tempfile::TempDir);

impl SmallFolder {
    /// Only root can mount one.
    fn mount() -> Option<Self> {
        let small = Self(folder().unwrap());
        small.have("size=3m,mode=0700").then_some(small)
    }

    fn have(&self, how: &str) -> bool {
        let mount = ["-t", "tmpfs", "-o", how, "none"];
        let done = Command::new("mount").args(mount).arg(self.0.path()).status();
        done.is_ok_and(|done| done.success())
    }
}

impl Drop for SmallFolder {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0.path()).status().ok();
    }
}

#[test]
fn a_vmi_stands_still_for_a_disk_without_space_and_goes_on_with_its_write() {
    let tools = Tools::open().unwrap();
    let Some(small) = SmallFolder::mount() else {
        eprintln!("skipped: this user can mount nothing");
        return;
    };
    let folder = small.0.path();
    let allowed = ["--host-disk-dir", folder.to_str().unwrap()];
    let handler = HandlerSetup::local().with(&allowed).start(&tools).unwrap();
    let kubectl = handler.kubectl().unwrap();
    let host =
        json!({"hostDisk": {"path": folder.join("disk.img"), "type": "DiskOrCreate", "capacity": "8Mi"}});
    kubectl.apply(&[with_disk(guest::NAME, &host).unwrap()]).unwrap();
    let vmi = kubectl.await_phase(guest::NAME, "Running").unwrap();
    let mut console = guest::answers(handler.rvm_on_terminal(&["console", guest::NAME]).unwrap()).unwrap();
    equip(&mut console).unwrap();
    console
        .ask("yes a guest wrote this | head -c 6291456 >/tmp/data")
        .unwrap();
    console
        .send("dd if=/tmp/data of=/dev/vda bs=64k conv=fsync 2>/dev/null; echo rc=$?\r")
        .unwrap();
    let reason = "jsonpath={.status.conditions[?(@.type=='Paused')].reason}";
    let paused = |wanted: &str| {
        let said = eventually("what is said of a pause", || {
            let said = kubectl.ok(&["get", "vmi", guest::NAME, "-o", reason])?;
            Ok(Look::of((said == wanted).then_some(()), || said))
        });
        said.unwrap();
    };
    paused("PausedIOError");
    let told = eventually("an event that names the volume", || {
        let text = "jsonpath={.items[?(@.reason=='IOerror')].message}";
        let said = kubectl.ok(&["get", "events", "-o", text])?;
        let told = said.contains("VM Paused due to IO error at the volume: data: ");
        Ok(Look::of(told.then_some(()), || said))
    });
    told.unwrap();
    assert!(small.have("remount,size=32m"));
    let run_dir = handler.run_dir().join(vmi["metadata"]["uid"].as_str().unwrap());
    let rvmm = tools.own("rvmm").unwrap();
    let resumed = Command::new(rvmm)
        .arg("ctl")
        .arg("--run-dir")
        .arg(run_dir)
        .arg("resume")
        .status();
    assert!(resumed.unwrap().success());
    console.expect("rc=0").unwrap();
    paused("");
    assert_eq!(
        console
            .ask("head -c 6291456 /dev/vda | cmp - /tmp/data && echo the$((0+1))same")
            .unwrap(),
        "the1same"
    );
    assert_eq!(console.leave().unwrap().status(), Some(0));
}

#[test]
fn a_claim_has_the_folder_or_block_device_of_the_volume_that_it_names() {
    let tools = Tools::open().unwrap();
    let folder = folder().unwrap();
    let image = folder.path().join("device.img");
    fs::write(&image, vec![0; 4 << 20]).unwrap();
    let Ok(device) = LoopDevice::over(&image) else {
        eprintln!("skipped: this user can make no loop device");
        return;
    };
    let allowed = [
        "--host-disk-dir",
        folder.path().to_str().unwrap(),
        "--host-disk-dir",
        "/dev",
    ];
    let handler = HandlerSetup::local().with(&allowed).start(&tools).unwrap();
    let kubectl = handler.kubectl().unwrap();
    let pair = |name: &str, mode: &str, path: &Path| {
        let modes = json!(["ReadWriteOnce"]);
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {"capacity": {"storage": "4Mi"}, "accessModes": modes, "volumeMode": mode, "local": {"path": path}},
        });
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {
                "accessModes": modes, "volumeMode": mode, "volumeName": name,
                "resources": {"requests": {"storage": "4Mi"}},
            },
        });
        [Manifest(volume), Manifest(claim)]
    };
    // The claim comes before its volume.
    let [volume, claim] = pair("device", "Block", device.path());
    kubectl.apply(&[claim]).unwrap();
    assert_eq!(
        kubectl.get(&["pvc", "device"]).unwrap()["status"]["phase"],
        "Pending"
    );
    kubectl
        .apply(&pair("folder", "Filesystem", folder.path()))
        .unwrap();
    kubectl.apply(&[volume]).unwrap();
    let bound = "jsonpath={.status.phase}=Bound";
    kubectl
        .ok(&[
            "wait",
            "--for",
            bound,
            "pvc/device",
            "pvc/folder",
            "--timeout=60s",
        ])
        .unwrap();
    let vmi = Manifest::demo().unwrap().with(|vmi| {
        let volumes = vmi["spec"]["volumes"].as_array_mut().unwrap();
        for name in ["device", "folder"] {
            volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        }
    });
    kubectl.apply(&[vmi]).unwrap();
    kubectl.await_phase(guest::NAME, "Running").unwrap();
    let mut console = guest::answers(handler.rvm_on_terminal(&["console", guest::NAME]).unwrap()).unwrap();
    assert_eq!(
        lines(&mut console, "cat /sys/block/vda/size /sys/block/vdb/size").unwrap(),
        ["8192", "8192"]
    );
    console
        .ask("echo to the device | dd of=/dev/vda conv=fsync")
        .unwrap();
    console
        .ask("echo to the folder | dd of=/dev/vdb conv=fsync")
        .unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));
    kubectl
        .ok(&["delete", "vmi", guest::NAME, "--timeout=60s"])
        .unwrap();
    kubectl
        .ok(&["delete", "pvc", "device", "folder", "--timeout=60s"])
        .unwrap();
    assert_eq!(
        kubectl.get(&["pv", "device"]).unwrap()["status"]["phase"],
        "Released"
    );
    drop(device);
    assert!(fs::read(image).unwrap().starts_with(b"to the device\n"));
    assert!(
        fs::read(folder.path().join("disk.img"))
            .unwrap()
            .starts_with(b"to the folder\n")
    );
}

#[test]
fn kubevirts_efi_manifest_boots_a_container_disk_to_its_prompt() {
    let tools = Tools::open().unwrap();
    let image = efi::image(&Cache::open().unwrap()).unwrap();
    let mirror = format!("{}=oci:{}", vmi_alpine_efi::IMAGE, image.display());
    let handler = HandlerSetup::local()
        .with(&["--mirror", &mirror])
        .start(&tools)
        .unwrap();
    let kubectl = handler.kubectl().unwrap();
    kubectl.apply(&[vmi_alpine_efi::manifest()]).unwrap();
    let vmi = kubectl.await_phase(vmi_alpine_efi::NAME, "Running").unwrap();
    let viewer = handler.rvm_on_terminal(&["console", "vmi-alpine-efi"]).unwrap();
    let mut console = Console::at_prompt(viewer, "guest# ").unwrap();
    assert_eq!(console.ask("echo $((6 * 7)) $(uname -m)").unwrap(), "42 riscv64");
    // What the guest writes stays its own.
    console
        .ask("dd if=/dev/zero of=/dev/vda bs=512 count=1 conv=fsync")
        .unwrap();
    assert_eq!(console.leave().unwrap().status(), Some(0));
    let uid = vmi["metadata"]["uid"].as_str().unwrap();
    let own = allocated(&handler.state_dir().join("disks").join(uid));
    let shared = allocated(&handler.state_dir().join("roots"));
    assert!(
        own < 512 << 10 && shared > 8 << 20,
        "{own} bytes of its own, {shared} shared"
    );
    kubectl
        .ok(&["delete", "vmi", "vmi-alpine-efi", "--timeout=60s"])
        .unwrap();
    let roots = fs::read_dir(handler.state_dir().join("roots")).unwrap();
    let bases = roots.map(|entry| entry.unwrap().path());
    let base = bases
        .filter(|path| path.extension().is_some_and(|end| end == "disk"))
        .last()
        .unwrap();
    assert_eq!(fs::read(base).unwrap()[510..512], [0x55, 0xaa]);
}
