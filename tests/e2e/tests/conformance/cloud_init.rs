//! What a guest is told by cloud-init's disks. That cloud-init itself follows it, `distribution.rs` shows with a Debian.

use rvm_e2e::guest;
use rvm_harness::{Manifest, Plain};
use serde_json::{Value, json};

use crate::place::{Place, vmi};

const USER_DATA: &str = "#cloud-config\npassword: sesame";
const KEY: &str = "ssh-ed25519 AAAA one";

fn secret(name: &str, data: &Value) -> Manifest {
    Manifest(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}))
}

/// The demo with one more volume, whose disk is the guest's first.
fn with_volume(volume: Value) -> Manifest {
    vmi().with(|vmi| {
        let name = volume["name"].clone();
        vmi["spec"]["volumes"].as_array_mut().unwrap().push(volume);
        vmi["spec"]["domain"]["devices"]["disks"] = json!([{"name": name, "disk": {"bus": "virtio"}}]);
    })
}

/// What is in a file of the guest's first disk, which the guest has to contain.
fn reads(place: &Place, file: &str, text: &str) {
    let mut console: Plain = place.console();
    console.expect(guest::PROMPT).unwrap();
    let command =
        format!("mkdir -p /v; mount -t iso9660 -o ro /dev/vda /v; cat /v/{file}; umount /v; echo\r");
    console.send(command.as_bytes()).unwrap();
    console.expect(text).unwrap();
}

pub fn case_08_user_data_comes_from_a_secret(place: &Place) {
    place.apply(&[secret("user", &json!({"userdata": USER_DATA}))]);
    place.run(with_volume(
        json!({"name": "cloud", "cloudInitNoCloud": {"secretRef": {"name": "user"}}}),
    ));
    reads(place, "user-data", "password: sesame");
}

pub fn case_09_user_data_comes_in_base64(place: &Place) {
    let encoded = "I2Nsb3VkLWNvbmZpZwpwYXNzd29yZDogc2VzYW1l";
    place.run(with_volume(
        json!({"name": "cloud", "cloudInitNoCloud": {"userDataBase64": encoded}}),
    ));
    reads(place, "user-data", "password: sesame");
}

/// By the agent they come in `distribution.rs`.
pub fn case_47_ssh_keys_come_by_either_kind_of_cloud_init(place: &Place) {
    place.apply(&[secret("ssh", &json!({"key": KEY}))]);
    let kinds = [
        ("cloudInitNoCloud", "noCloud", "meta-data"),
        (
            "cloudInitConfigDrive",
            "configDrive",
            "openstack/latest/meta_data.json",
        ),
    ];
    for (volume, method, file) in kinds {
        let with_key = with_volume(json!({"name": "cloud", volume: {"userData": USER_DATA}})).with(|vmi| {
            vmi["spec"]["accessCredentials"] = json!([{"sshPublicKey": {
                "source": {"secret": {"secretName": "ssh"}}, "propagationMethod": {method: {}},
            }}]);
        });
        place.run(with_key);
        reads(place, file, KEY);
        place
            .kubectl
            .ok(&["delete", "vmi", guest::NAME, "--timeout=120s"])
            .unwrap();
    }
}
