//! A whole distribution in a VMI, in local mode and emulated: firmware boots its disk, cloud-init sets it up, its user logs in by
//! SSH, its agent is asked to switch it off.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use rvm_e2e::distribution::{self, NAME, Visitor, await_boot, await_set_up, user_data, vmi};
use rvm_harness::patience::{Look, PATIENCE, eventually};
use rvm_harness::{Handler, HandlerSetup, Kubectl, Manifest, Tools};
use rvm_outer::{Output, Session};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A handler with the image, a folder for its host disk, and somebody who logs in.
struct Stage {
    handler: Handler,
    kubectl: Kubectl,
    folder: TempDir,
    visitor: Visitor,
}

impl Stage {
    fn set(tools: &Arc<Tools>, setup: HandlerSetup) -> Self {
        let folder = tempfile::Builder::new().prefix("rvm-disks-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mirror = distribution::mirror().unwrap();
        let allowed = folder.path().to_str().unwrap();
        let arguments = ["--mirror", &mirror, "--host-disk-dir", allowed];
        let handler = setup.with(&arguments).start(tools).unwrap();
        Self {
            kubectl: handler.kubectl().unwrap(),
            handler,
            folder,
            visitor: Visitor::new(tools).unwrap(),
        }
    }

    fn secret(&self, name: &str, key: &str, text: &str) {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: text}});
        self.kubectl.apply(&[Manifest(secret)]).unwrap();
    }

    /// The file of the VMI's disk that stays.
    fn host_disk(&self) -> PathBuf {
        self.folder.path().join("host.img")
    }

    /// The VMI with this cloud-init, once it is set up.
    fn run(&self, cloud_init: Value, change: impl FnOnce(&mut Value)) -> Session {
        let vmi = vmi(cloud_init, &self.host_disk()).with(change);
        self.kubectl.apply(&[vmi]).unwrap();
        self.kubectl.await_phase(NAME, "Running").unwrap();
        await_set_up(&self.handler).unwrap()
    }

    /// What a command prints in the guest, once that lets somebody in and it goes well.
    fn says_in_the_end(&self, user: &str, command: &str) -> String {
        let said = eventually(command, || {
            let output = self.visitor.ssh(&self.handler, user, command)?;
            let said = (output.text(), output.error_text());
            let well = (output.status() == Some(0)).then_some(said.0);
            Ok(Look::of(well, || said.1))
        });
        said.unwrap().trim().to_owned()
    }

    /// The VMI, once its status tells what its guest's agent said.
    fn told(&self) -> Value {
        let told = eventually("guest's words", || {
            let vmi = self.kubectl.vmi(NAME)?;
            let says = vmi["status"]["guestOSInfo"].is_object();
            Ok(Look::of(says.then(|| vmi.clone()), || vmi["status"].to_string()))
        });
        told.unwrap()
    }

    /// Has the guest's agent run this in a shell.
    fn exec(&self, tools: &Tools, script: &str) -> Output {
        let vmi = self.kubectl.vmi(NAME).unwrap();
        let machine = self.handler.machine(vmi["metadata"]["uid"].as_str().unwrap());
        let (rvmm, socket) = (tools.own("rvmm").unwrap(), machine.control_socket());
        let ask = [
            rvmm.to_str().unwrap(),
            "ctl",
            "--socket",
            socket.to_str().unwrap(),
            "exec",
            "--",
        ];
        let ask = [&ask[..], &["/bin/sh", "-c", script]].concat();
        tools.run(&ask, &[], "").unwrap()
    }

    /// What a command prints in the guest, over SSH, line by line.
    fn says(&self, user: &str, command: &str) -> Vec<String> {
        let said = self.visitor.says(&self.handler, user, command).unwrap();
        said.lines().map(|line| line.trim().to_owned()).collect()
    }

    /// How often the guest's kernel says that this firmware booted it.
    fn booted_by(&self, firmware: &str) -> Vec<String> {
        self.says(
            "alice",
            &format!("sudo dmesg | grep -c 'EFI v.* by .*{firmware}'"),
        )
    }

    /// Has the machine end, and waits until it has, in this phase.
    fn stop(&self, phase: &str) {
        let stopped = self.handler.rvm(&["stop", NAME]).unwrap();
        assert_eq!(stopped.status(), Some(0), "{}", stopped.error_text());
        self.kubectl.await_phase(NAME, phase).unwrap();
    }
}

/// The way by which access credentials go, with the Secret `ssh`.
fn by(propagation: &str) -> Value {
    json!([{"sshPublicKey": {"source": {"secret": {"secretName": "ssh"}}, "propagationMethod": {propagation: {}}}}])
}

/// What shows that alice's guest is what the user data said, and what it has to say.
const PROOF: &str = "hostname; id -un; uname -m; cat /etc/proof";
const PROVEN: [&str; 4] = ["by-cloud-init", "alice", "riscv64", "written by cloud-init"];

/// A variable of the firmware's, which nobody else has.
const VARIABLE: &str = "/sys/firmware/efi/efivars/Kept-6f0bd0cf-7c3a-4a2e-9a57-0c8f6a3d3b11";

/// Has a guest answer datagrams at port 7 with what they hold.
const ECHO: &str = r#"sudo systemd-run -q python3 -c 'from socket import *; s = socket(AF_INET, SOCK_DGRAM); s.bind(("", 7)); [s.sendto(*s.recvfrom(99)) for _ in iter(int, 1)]'"#;

/// What comes back of a datagram to a port of this host.
fn echoed(handler: &Handler) -> Vec<u8> {
    let mut forwarded = handler
        .rvm_on_terminal(&["port-forward", &format!("vmi/{NAME}"), "udp/0:7"])
        .unwrap();
    forwarded.expect("Forwarding udp ", PATIENCE).unwrap();
    let address = forwarded.expect(" to 7", PATIENCE).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address.trim_end_matches(" to 7")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let echoed = eventually("echo", || {
        let mut answer = [0; 99];
        // It may be lost, or come before anybody listens.
        socket.send(b"who is there")?;
        let length = socket.recv(&mut answer).ok();
        Ok(Look::of(
            length.map(|length| answer[..length].to_vec()),
            String::new,
        ))
    });
    echoed.unwrap()
}

/// What a guest's SSH server says to whoever connects to a port of this host.
fn greeting(handler: &Handler) -> String {
    let mut forwarded = handler
        .rvm_on_terminal(&["port-forward", &format!("vmi/{NAME}"), "0:22"])
        .unwrap();
    forwarded.expect("Forwarding tcp ", PATIENCE).unwrap();
    let address = forwarded.expect(" to 22", PATIENCE).unwrap();
    let address: SocketAddr = address.trim_end_matches(" to 22").parse().unwrap();
    let mut line = String::new();
    BufReader::new(TcpStream::connect(address).unwrap())
        .read_line(&mut line)
        .unwrap();
    line
}

#[test]
fn full_an_ordinary_users_distribution_is_set_up_by_cloud_init_reached_and_left_by_its_agent() {
    let tools = Tools::open().unwrap();
    let user = HandlerSetup::local().unprivileged(Path::new("/etc/resolv.conf"));
    let stage = Stage::set(&tools, user);
    stage.secret("user", "userdata", &user_data(&stage.visitor.key));
    stage.secret("ssh", "key", &stage.visitor.key);
    let cloud_init = json!({"cloudInitNoCloud": {"secretRef": {"name": "user"}}});
    stage.run(cloud_init, |vmi| {
        vmi["spec"]["accessCredentials"] = by("noCloud");
    });
    assert_eq!(stage.says("alice", PROOF), PROVEN);
    assert!(greeting(&stage.handler).starts_with("SSH-2.0-OpenSSH"));
    assert_eq!(stage.booted_by("Das U-Boot"), ["1"]);
    stage.says("alice", ECHO);
    assert_eq!(echoed(&stage.handler), b"who is there");
    // The key of the access credentials is the image's own user's.
    assert_eq!(stage.says("debian", "id -un"), ["debian"]);
    // Its address is the one of a guest behind masquerade.
    assert_eq!(
        stage.says("alice", "ip -4 -o addr show scope global | awk '{print $4}'"),
        ["10.0.2.2/24"]
    );

    let status = &stage.told()["status"];
    assert_eq!(status["guestOSInfo"]["id"], "debian");
    assert_eq!(status["guestOSInfo"]["machine"], "riscv64");
    assert_eq!(
        stage.says("alice", "uname -r"),
        [status["guestOSInfo"]["kernelRelease"].as_str().unwrap()]
    );
    let interface = &status["interfaces"][0];
    assert_eq!(interface["infoSource"], "domain, guest-agent");
    assert_eq!(
        stage.says("alice", "basename /sys/class/net/e*"),
        [interface["interfaceName"].as_str().unwrap()]
    );
    let conditions = status["conditions"].as_array().unwrap();
    assert!(
        conditions
            .iter()
            .any(|one| one["type"] == "AgentConnected" && one["status"] == "True")
    );

    // What a probe of a pod asks for: a command in the guest, by its agent.
    let ran = stage.exec(&tools, "cat /etc/os-release | grep ^ID=; echo no >&2; exit 3");
    assert_eq!(
        (ran.status(), ran.text(), ran.error_text()),
        (Some(3), "ID=debian\n".to_owned(), "no\n".to_owned())
    );

    stage.stop("Succeeded");
    let disk = fs::read(stage.host_disk()).unwrap();
    assert!(
        disk.starts_with(b"farewell"),
        "the guest was not let to end its services"
    );
}

#[test]
fn full_a_config_drive_sets_a_distribution_up_that_edk2_boots_twice() {
    let tools = Tools::open().unwrap();
    let stage = Stage::set(&tools, HandlerSetup::local());
    stage.secret("ssh", "key", &stage.visitor.key);
    let data = BASE64.encode(user_data(&stage.visitor.key));
    let mut console = stage.run(json!({"cloudInitConfigDrive": {"userDataBase64": data}}), |vmi| {
        vmi["spec"]["domain"]["firmware"]["bootloader"]["efi"]["persistent"] = json!(true);
        vmi["spec"]["accessCredentials"] = by("configDrive");
    });
    assert_eq!(stage.says("alice", PROOF), PROVEN);
    assert_eq!(stage.says("debian", "id -un"), ["debian"]);
    let disks = stage.handler.disks().unwrap();
    let folder = stage.handler.state_dir().join("disks").join(&disks[0]);
    let variables = fs::metadata(folder.join("efi-variables.fd")).unwrap();
    assert_eq!(variables.permissions().mode() & 0o777, 0o600);

    // Its attributes: kept, seen while it boots, and afterwards.
    let write = format!("sudo sh -c 'printf \"\\007\\000\\000\\000kept\" >{VARIABLE}'");
    stage.says("alice", &write);
    // The connection may end before ssh knows how the command did.
    stage
        .visitor
        .ssh(&stage.handler, "alice", "sudo systemctl reboot")
        .unwrap();
    await_boot(&mut console).unwrap();
    let read = format!("sudo tail -c 4 {VARIABLE}");
    assert_eq!(stage.says_in_the_end("alice", &read), "kept");
}

#[test]
fn full_an_agent_sets_keys_and_passwords_and_a_deaf_guest_is_cut_off_at_the_deadline() {
    let tools = Tools::open().unwrap();
    let stage = Stage::set(&tools, HandlerSetup::local());
    let deaf = user_data(&stage.visitor.key).replace(
        "ExecStop=/bin/sh -c 'echo",
        "TimeoutStopSec=infinity\n      ExecStop=/bin/sh -c 'sleep infinity; echo",
    );
    stage.secret("ssh", "key", &stage.visitor.key);
    stage.secret("words", "debian", "open sesame");
    let cloud_init = json!({"cloudInitNoCloud": {"userData": deaf}});
    let mut console = stage.run(cloud_init, |vmi| {
        vmi["metadata"]["annotations"] = json!({"rvm/firmware": "edk2"});
        vmi["spec"]["terminationGracePeriodSeconds"] = json!(5);
        vmi["spec"]["accessCredentials"] = json!([
            {"sshPublicKey": {
                "source": {"secret": {"secretName": "ssh"}},
                "propagationMethod": {"qemuGuestAgent": {"users": ["debian"]}},
            }},
            {"userPassword": {
                "source": {"secret": {"secretName": "words"}}, "propagationMethod": {"qemuGuestAgent": {}},
            }},
        ]);
    });
    assert_eq!(stage.says("alice", PROOF), PROVEN);
    assert_eq!(stage.booted_by("EDK II"), ["1"]);
    // Nobody but the agent has given this user anything.
    let set = "jsonpath={.status.conditions[?(@.type=='AccessCredentialsSynchronized')].status}";
    let told = eventually("credentials", || {
        let said = stage.kubectl.ok(&["get", "vmi", NAME, "-o", set])?;
        Ok(Look::of((said == "True").then_some(()), || said))
    });
    told.unwrap();
    assert_eq!(stage.says("debian", "id -un"), ["debian"]);
    for (typed, answer) in [
        ("", "login: "),
        ("debian", "Password: "),
        ("open sesame", "debian@by-cloud-init"),
    ] {
        console.send(format!("{typed}\r")).unwrap();
        console.expect(answer, PATIENCE).unwrap();
    }
    let events = stage.kubectl.events(NAME).unwrap();
    assert!(
        events
            .iter()
            .any(|(_, reason)| reason == "AccessCredentialsSyncSuccess"),
        "{events:?}"
    );
    stage.stop("Failed");
    let disk = fs::read(stage.host_disk()).unwrap();
    assert!(disk.iter().all(|byte| *byte == 0), "the guest was waited for");
}
