//! A whole distribution in a VMI, in local mode and emulated: firmware boots its disk, cloud-init sets it up, its user logs in by
//! SSH, its agent is asked to switch it off.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use rvm_e2e::distribution::{self, Keys, NAME, log_in, user_data, vmi};
use rvm_guests::cache::sha256_of;
use rvm_guests::{Cache, Kernel};
use rvm_harness::{Console, Handler, HandlerSetup, Kubectl, Manifest, Tools};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A handler with the image, a folder for its host disk, and somebody's keys.
struct Stage {
    handler: Handler,
    kubectl: Kubectl,
    folder: TempDir,
    keys: Keys,
}

impl Stage {
    fn set(tools: &Arc<Tools>) -> Self {
        let folder = tempfile::Builder::new().prefix("rvm-disks-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mirror = distribution::mirror().unwrap();
        let allowed = folder.path().to_str().unwrap();
        let arguments = ["--mirror", &mirror, "--host-disk-dir", allowed];
        let handler = HandlerSetup::local().with(&arguments).start(tools).unwrap();
        Self {
            kubectl: handler.kubectl().unwrap(),
            handler,
            folder,
            keys: Keys::new().unwrap(),
        }
    }

    fn secret(&self, name: &str, key: &str, text: &str) {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: text}});
        self.kubectl.apply(&[Manifest(secret)]).unwrap();
    }

    /// The VMI with this cloud-init, up to alice's prompt on its console.
    fn run(&self, cloud_init: Value, change: impl FnOnce(&mut Value)) -> Console {
        self.secret("private-key", "key", &self.keys.private);
        let vmi = vmi(cloud_init, &self.folder.path().join("host.img")).with(change);
        self.kubectl.apply(&[vmi]).unwrap();
        self.kubectl.await_phase(NAME, "Running").unwrap();
        log_in(&self.handler).unwrap()
    }
}

/// What a user says over SSH to the guest itself.
fn over_ssh(console: &mut Console, user: &str, command: &str) -> String {
    let options = "-o BatchMode=yes -o StrictHostKeyChecking=accept-new -o LogLevel=ERROR";
    console
        .ask(&format!("ssh {options} -i key {user}@localhost '{command}'"))
        .unwrap()
}

/// The private key is on a disk of the guest's; only its user may read it.
fn fetch_key(console: &mut Console) {
    console.ask("sudo mount -o ro LABEL=cfgdata /mnt").unwrap();
    console.ask("sudo install -o alice -m 600 /mnt/key key").unwrap();
}

#[test]
fn full_a_distribution_is_set_up_by_cloud_init_and_left_by_its_agent() {
    let tools = Tools::open().unwrap();
    let stage = Stage::set(&tools);
    stage.secret("user", "userdata", &user_data(&stage.keys.public));
    stage.secret("ssh", "key", &stage.keys.public);
    let cloud_init = json!({"cloudInitNoCloud": {"secretRef": {"name": "user"}}});
    let mut console = stage.run(cloud_init, |vmi| {
        vmi["spec"]["accessCredentials"] = json!([{"sshPublicKey": {
            "source": {"secret": {"secretName": "ssh"}}, "propagationMethod": {"noCloud": {}},
        }}]);
    });
    fetch_key(&mut console);
    assert_eq!(over_ssh(&mut console, "alice", "hostname"), "by-cloud-init");
    let proof = over_ssh(&mut console, "alice", "id -un; cat /etc/proof; uname -m");
    assert_eq!(
        proof.lines().map(str::trim).collect::<Vec<_>>(),
        ["alice", "written by cloud-init", "riscv64"]
    );
    // The key of the access credentials is the image's own user's.
    assert_eq!(over_ssh(&mut console, "debian", "id -un"), "debian");
    assert_eq!(console.leave().unwrap().status(), Some(0));

    let stopped = stage.handler.rvm(&["stop", NAME]).unwrap();
    assert_eq!(stopped.status(), Some(0), "{}", stopped.error_text());
    stage.kubectl.await_phase(NAME, "Succeeded").unwrap();
    let disk = fs::read(stage.folder.path().join("host.img")).unwrap();
    assert!(
        disk.starts_with(b"farewell"),
        "the guest was not let to end its services"
    );
}

#[test]
fn full_a_config_drive_sets_a_distribution_up_that_edk2_boots() {
    let tools = Tools::open().unwrap();
    let stage = Stage::set(&tools);
    stage.secret("ssh", "key", &stage.keys.public);
    let data = BASE64.encode(user_data(&stage.keys.public));
    let mut console = stage.run(json!({"cloudInitConfigDrive": {"userDataBase64": data}}), |vmi| {
        vmi["spec"]["domain"]["firmware"]["bootloader"]["efi"]["persistent"] = json!(true);
        vmi["spec"]["accessCredentials"] = json!([{"sshPublicKey": {
            "source": {"secret": {"secretName": "ssh"}}, "propagationMethod": {"configDrive": {}},
        }}]);
    });
    fetch_key(&mut console);
    assert_eq!(over_ssh(&mut console, "alice", "hostname"), "by-cloud-init");
    assert_eq!(over_ssh(&mut console, "debian", "id -un"), "debian");
    let disks = stage.handler.disks().unwrap();
    let variables = stage
        .handler
        .state_dir()
        .join("disks")
        .join(&disks[0])
        .join("efi-variables.fd");
    assert_eq!(
        fs::metadata(variables).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn full_a_distribution_that_does_not_switch_itself_off_is_cut_off_at_the_deadline() {
    let tools = Tools::open().unwrap();
    let stage = Stage::set(&tools);
    let deaf = user_data(&stage.keys.public).replace(
        "ExecStop=/bin/sh -c 'echo",
        "TimeoutStopSec=infinity\n      ExecStop=/bin/sh -c 'sleep infinity; echo",
    );
    let console = stage.run(json!({"cloudInitNoCloud": {"userData": deaf}}), |vmi| {
        vmi["spec"]["terminationGracePeriodSeconds"] = json!(5);
    });
    assert_eq!(console.leave().unwrap().status(), Some(0));
    assert_eq!(stage.handler.rvm(&["stop", NAME]).unwrap().status(), Some(0));
    stage.kubectl.await_phase(NAME, "Succeeded").unwrap();
    let disk = fs::read(stage.folder.path().join("host.img")).unwrap();
    assert!(disk.iter().all(|byte| *byte == 0), "the guest was waited for");
}

#[test]
fn full_the_same_packages_give_the_same_disks() {
    let cache = Cache::open().unwrap();
    let first = rvm_guests::distribution::build(&cache).unwrap();
    let folder = tempfile::tempdir().unwrap();
    rvm_guests::distribution::build_in(&cache, &Kernel::debian(&cache).unwrap(), folder.path()).unwrap();
    for made in [first.raw, first.qcow2] {
        let again = folder.path().join(made.file_name().unwrap());
        assert_eq!(
            sha256_of(&made).unwrap(),
            sha256_of(&again).unwrap(),
            "{}",
            made.display()
        );
    }
}
