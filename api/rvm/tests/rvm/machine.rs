//! What virtctl has, with what it asks and what it says: by the Kubernetes API of a kubeconfig.

use rvm_server::agent::Command;
use serde_json::{Value, json};

use crate::lab::{Lab, stderr};

const INSTANCE: &str = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/alpine";

impl Lab {
    /// What the Kubernetes API was asked since we last looked.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("nobody panics"))
    }

    fn connects_agent(&self) {
        let conditions = json!([{"type": "AgentConnected", "status": "True"}]);
        let status = json!({"status": {"conditions": conditions}});
        self.api.merge("default", "alpine", &status);
    }
}

#[tokio::test]
async fn an_instance_is_paused_reset_and_goes_on_as_by_virtctl() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let paused = lab.ok(&["pause", "vmi", "alpine"]).await;
    assert_eq!(paused, "VMI alpine was scheduled to pause\n");
    assert_eq!(lab.asked(), [format!("PUT {INSTANCE}/pause {{}}")]);
    let rehearsed = lab.ok(&["pause", "vmi", "alpine", "--dry-run"]).await;
    assert_eq!(
        rehearsed,
        "Dry Run execution\nVMI alpine was scheduled to pause\n"
    );
    assert_eq!(
        lab.asked(),
        [format!("PUT {INSTANCE}/pause {{\"dryRun\":[\"All\"]}}")]
    );
    let reset = lab.ok(&["reset", "alpine"]).await;
    assert_eq!(reset, "VMI alpine was scheduled to reset\n");
    assert_eq!(lab.asked(), [format!("PUT {INSTANCE}/reset")]);
    let line = lab.error(&["unpause", "vmi", "alpine"]).await;
    assert_eq!(
        line,
        "error: Error unpausing VirtualMachineInstance alpine: Operation cannot be fulfilled on \
         virtualmachineinstance.kubevirt.io \"alpine\": VMI is not paused"
    );
    let line = lab.error(&["pause", "vm", "alpine"]).await;
    assert!(
        line.starts_with("error: Error getting VirtualMachine alpine: "),
        "{line}"
    );
}

#[tokio::test]
async fn a_machine_is_started_stopped_and_restarted_by_virtctls_requests() {
    let lab = Lab::with_kubernetes().await;
    let base = "/apis/subresources.kubevirt.io/v1/namespaces/lab/virtualmachines/a";
    // There is no such machine: what is asked for is what counts.
    let line = lab.error(&["start", "a", "--paused", "-n", "lab"]).await;
    assert!(
        line.starts_with("error: Error starting VirtualMachine "),
        "{line}"
    );
    let line = lab
        .error(&["restart", "a", "--force", "--grace-period", "0", "-n", "lab"])
        .await;
    assert!(
        line.starts_with("error: Error restarting VirtualMachine "),
        "{line}"
    );
    assert_eq!(
        lab.asked(),
        [
            format!("PUT {base}/start {{\"paused\":true}}"),
            format!("PUT {base}/restart {{\"gracePeriodSeconds\":0}}"),
        ]
    );
    let line = lab.error(&["restart", "a", "--force"]).await;
    assert_eq!(line, "error: Must both use --force=true and set --grace-period.");
    assert_eq!(lab.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_guest_tells_of_itself() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let line = lab.error(&["guestosinfo", "alpine"]).await;
    assert_eq!(
        line,
        "error: Error getting guestosinfo of VirtualMachineInstance alpine, Operation cannot be fulfilled on \
         virtualmachineinstance.kubevirt.io \"alpine\": VMI does not have guest agent connected"
    );
    lab.connects_agent();
    lab.machines
        .answer(Command::Users, json!([{"user": "root", "login-time": 1.5}]));
    let user = json!({"userName": "root", "loginTime": 1.5});
    let told = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    assert_eq!(
        told(lab.ok(&["userlist", "alpine"]).await)["items"],
        json!([user])
    );
    assert_eq!(told(lab.ok(&["fslist", "alpine"]).await)["items"], json!([]));
    assert_eq!(
        told(lab.ok(&["guestosinfo", "alpine"]).await)["userList"],
        json!([user])
    );
    lab.machines.answer(Command::Reboot, Value::Null);
    lab.machines.answer(Command::Freeze, json!(1));
    lab.machines.answer(Command::Thaw, json!(1));
    lab.asked();
    let rebooted = lab.ok(&["soft-reboot", "alpine"]).await;
    assert_eq!(rebooted, "VMI alpine was scheduled to soft-reboot\n");
    lab.ok(&["freeze", "alpine", "--unfreeze-timeout", "1h"]).await;
    lab.ok(&["unfreeze", "alpine"]).await;
    assert_eq!(
        lab.asked(),
        [
            format!("PUT {INSTANCE}/softreboot"),
            format!("PUT {INSTANCE}/freeze {{\"unfreezeTimeout\":\"3600s\"}}"),
            format!("PUT {INSTANCE}/unfreeze"),
        ]
    );
}

#[tokio::test]
async fn what_there_is_not_is_refused_with_the_reason() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let line = lab.error(&["vnc", "alpine"]).await;
    assert_eq!(
        line,
        "error: can't access VMI alpine: No graphics devices are present."
    );
    let line = lab
        .error(&["addvolume", "alpine", "--volume-name=data", "--disk-type=lun"])
        .await;
    let refused = "error: error adding volume, spec.domain.devices.disks";
    assert!(
        line.starts_with(refused) && line.contains("is not scsi"),
        "{line}"
    );
}

#[tokio::test]
async fn a_file_is_expanded() {
    let lab = Lab::with_kubernetes().await;
    let vm = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "a"},
        "spec": {"runStrategy": "Always", "template": {"spec": {"domain": {"devices": {}}}}},
    });
    lab.write("vm.yaml", &vm.to_string());
    let expanded: Value =
        serde_json::from_str(&lab.ok(&["expand", "-f", "vm.yaml", "-o", "json"]).await).unwrap();
    assert_eq!(
        (&expanded["spec"], &expanded["metadata"]["namespace"]),
        (&vm["spec"], &json!("default"))
    );
}

#[tokio::test]
async fn a_kubeconfig_that_leads_nowhere_is_told_in_one_line() {
    let lab = Lab::new().await;
    let line = lab.error(&["start", "a"]).await;
    assert!(line.starts_with("error: no kubeconfig can be read"), "{line}");
    lab.write("nowhere", "{}");
    let output = lab.rvm(&["start", "a", "--kubeconfig", "nowhere"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
}

#[tokio::test]
async fn a_machine_is_written_as_virtctl_writes_it_and_no_server_is_asked() {
    let lab = Lab::new().await;
    lab.write("password", "geheim\n");
    let flags = [
        "create",
        "vm",
        "--name=web",
        "--volume-containerdisk=src:r:5000/a:1,bootorder:1",
        "--volume-pvc",
        "src:data",
        "--user",
        "ann",
        "--ssh-key",
        "ssh-ed25519 AAAA ann",
        "--password-file",
        "password",
        "--run-strategy=Manual",
    ];
    let yaml = lab
        .ok(&[&["--server", "unix:///nowhere"], &flags[..]].concat())
        .await;
    let written = rvm_types::manifest::parse(yaml.as_bytes()).expect("it is a manifest");
    let data = "#cloud-config\nuser: \"ann\"\npassword: \"geheim\"\nchpasswd: { expire: False }\n\
                ssh_authorized_keys:\n  - \"ssh-ed25519 AAAA ann\"";
    let expected = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "web"},
        "spec": {"runStrategy": "Manual", "template": {"spec": {
            "terminationGracePeriodSeconds": 180,
            "domain": {
                "memory": {"guest": "512Mi"},
                "devices": {"disks": [{"name": "web-containerdisk-0", "bootOrder": 1}]},
            },
            "volumes": [
                {"name": "web-containerdisk-0", "containerDisk": {"image": "r:5000/a:1"}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "cloudinitdisk", "cloudInitNoCloud": {"userData": data}},
            ],
        }}},
    });
    assert_eq!(written, std::slice::from_ref(&expected));
    // It is one that rvm itself takes.
    let vm = serde_json::from_value(expected).expect("it is a VirtualMachine");
    assert_eq!(rvm_types::admission::vm::validate(&vm), []);
    let error = lab.error(&["create", "vm", "--run-strategy", "Never"]).await;
    assert!(
        error.starts_with("error: failed to parse \"--run-strategy\" flag: invalid run strategy \"Never\""),
        "{error}"
    );
    let error = lab.error(&["create", "vm", "--instancetype", "u1.small"]).await;
    assert!(
        error.contains("neither instance types nor preferences"),
        "{error}"
    );
}

#[tokio::test]
async fn volumes_and_displays_are_asked_for_with_virtctls_requests() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let flags = [
        "addvolume",
        "alpine",
        "--volume-name=data",
        "--disk-name=d",
        "--serial=7",
        "--cache=none",
        "--persist",
    ];
    lab.ok(&flags).await;
    let machine = INSTANCE.replace("virtualmachineinstances", "virtualmachines");
    let body = json!({
        "name": "d", "disk": {"disk": {"bus": "scsi"}, "serial": "7", "cache": "none"},
        "volumeSource": {"persistentVolumeClaim": {"claimName": "data", "hotpluggable": true}},
    });
    let asked = lab.asked();
    let (request, sent) = asked[0].split_once(" {").expect("a body");
    assert_eq!(request, format!("PUT {machine}/addvolume"));
    let sent: Value = serde_json::from_str(&format!("{{{sent}")).expect("JSON");
    assert_eq!(sent, body);
    lab.ok(&["removevolume", "alpine", "--volume-name=d"]).await;
    assert_eq!(
        lab.asked(),
        [format!("PUT {INSTANCE}/removevolume {{\"name\":\"d\"}}")]
    );
    let none = "No graphics devices are present.";
    let seen = lab
        .error(&["vnc", "alpine", "--proxy-only", "--port", "5900"])
        .await;
    assert_eq!(seen, format!("error: can't access VMI alpine: {none}"));
    let shot = lab
        .error(&["vnc", "screenshot", "alpine", "-f", "shot.png"])
        .await;
    assert_eq!(shot, format!("error: Can't access VMI alpine: {none}"));
    assert_eq!(
        lab.asked(),
        [
            format!("GET {INSTANCE}/vnc"),
            format!("GET {INSTANCE}/vnc/screenshot?moveCursor=false")
        ]
    );
}
