//! A VMI with a whole distribution: Debian on a disk that firmware boots, set up by cloud-init.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rvm_guests::{Cache, distribution, openssh};
use rvm_harness::{Console, Handler, Manifest, PATIENCE};
use serde_json::{Value, json};

/// The VMI's name.
pub const NAME: &str = "debian";

/// The image that its disk is in.
const IMAGE: &str = "registry.example/rvm/debian-efi:13";

/// How the user's shell shows that it is ready, and how it is told to.
const PROMPT: &str = "ready> ";
const SET_PROMPT: &str = "PS1='ready''> '; stty cols 400";

/// What the user is asked for at the console.
const PASSWORD: &str = "sesame";

/// What is written by cloud-init, in the user data of all these tests. Its unit says farewell to a disk of the host.
const USER_DATA: &str = "\
#cloud-config
hostname: by-cloud-init
users:
  - default
  - name: alice
    shell: /bin/sh
    lock_passwd: false
    plain_text_passwd: sesame
    sudo: ALL=(ALL) NOPASSWD:ALL
    ssh_authorized_keys: [KEY]
write_files:
  - path: /etc/proof
    content: written by cloud-init
  - path: /etc/systemd/system/farewell.service
    content: |
      [Service]
      Type=oneshot
      RemainAfterExit=yes
      ExecStart=true
      ExecStop=/bin/sh -c 'echo farewell >/dev/disk/by-id/virtio-HOST; sync'
runcmd:
  - [systemctl, start, farewell.service]
";

/// A pair of keys for SSH.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The half that the guest gets.
    pub public: String,
    /// The half that its user has.
    pub private: String,
}

impl Keys {
    /// A new pair.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("key");
        let made = Command::new(openssh::bin_dir(&Cache::open()?)?.join("ssh-keygen"))
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
            .arg(&file)
            .output()?;
        ensure!(
            made.status.success(),
            "no keys: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        Ok(Self {
            public: std::fs::read_to_string(file.with_extension("pub"))?
                .trim()
                .to_owned(),
            private: std::fs::read_to_string(file)?,
        })
    }
}

/// The user data with a key for alice.
#[must_use]
pub fn user_data(key: &str) -> String {
    USER_DATA.replace("KEY", key)
}

/// What a handler is told so that it finds the image.
///
/// # Errors
/// The image cannot be made.
pub fn mirror() -> Result<String> {
    let image = distribution::image(&Cache::open()?)?;
    Ok(format!("{IMAGE}=oci:{}", image.display()))
}

/// The VMI: its root, a volume of the test's for cloud-init, a Secret's with the private key, and a disk of the host.
#[must_use]
pub fn vmi(cloud_init: Value, host: &Path) -> Manifest {
    let mut cloud_init = cloud_init;
    cloud_init["name"] = json!("cloud");
    Manifest(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": NAME},
        "spec": {
            "domain": {
                "devices": {"disks": [
                    {"name": "root", "disk": {"bus": "virtio"}},
                    {"name": "host", "disk": {"bus": "virtio"}, "serial": "HOST"},
                ]},
                "cpu": {"cores": 2},
                "firmware": {"bootloader": {"efi": {"secureBoot": false}}},
                "memory": {"guest": "1Gi"},
            },
            "terminationGracePeriodSeconds": 180,
            "accessCredentials": [],
            "volumes": [
                {"name": "root", "containerDisk": {"image": IMAGE}},
                cloud_init,
                {"name": "key", "secret": {"secretName": "private-key"}},
                {"name": "host", "hostDisk": {"path": host, "type": "DiskOrCreate", "capacity": "1Mi"}},
            ],
        },
    }))
}

/// Waits until cloud-init has done its part, and logs in on the console as alice.
///
/// # Errors
/// The guest does not come so far.
pub fn log_in(handler: &Handler) -> Result<Console> {
    let mut session = handler.rvm_on_terminal(&["console", NAME])?;
    for seen in ["Welcome to", "running 'modules:config'", "finished at"] {
        let came = session.expect(seen, PATIENCE);
        came.with_context(|| format!("the guest never came to {seen:?}"))?;
    }
    // Its last words stand where the first prompt was.
    for (typed, asked) in [("", "login: "), ("alice", "Password: "), (PASSWORD, "$ ")] {
        session.send(format!("{typed}\r"))?;
        session.expect(asked, PATIENCE)?;
    }
    session.send(format!("{SET_PROMPT}\r"))?;
    Console::at_prompt(session, PROMPT)
}
