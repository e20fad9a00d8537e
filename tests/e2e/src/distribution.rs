//! A VMI with a whole distribution: Debian on a disk that firmware boots, set up by cloud-init, with somebody who logs in by SSH.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rvm_guests::{Cache, distribution, openssh};
use rvm_harness::patience::{Look, eventually};
use rvm_harness::{Handler, Manifest, PATIENCE, Tools};
use rvm_outer::{Output, Session};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The VMI's name.
pub const NAME: &str = "debian";

/// The image that its disk is in.
const IMAGE: &str = "registry.example/rvm/debian-efi:13";

/// What is written by cloud-init, in the user data of all these tests. Its unit says farewell to a disk of the host.
const USER_DATA: &str = "\
#cloud-config
hostname: by-cloud-init
users:
  - default
  - name: alice
    shell: /bin/sh
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

/// What is seen at the console, one after the other, in each boot, and then until cloud-init has done its part. On a busy machine
/// there are minutes from one to the next.
pub const BOOT: [&str; 3] = ["Welcome to", "local-fs.target", "running 'init-local'"];
/// The second half of it.
pub const SET_UP: [&str; 3] = ["running 'init'", "running 'modules:config'", "finished at"];

/// How somebody's ssh is not to depend on whose machine this is, and gives up in the end.
const SSH_OPTIONS: [&str; 6] = [
    "-Fnone",
    "-oBatchMode=yes",
    "-oIdentitiesOnly=yes",
    "-oStrictHostKeyChecking=accept-new",
    "-oConnectTimeout=120",
    "-oLogLevel=ERROR",
];

/// Somebody who logs in to guests by SSH, with a pair of keys that was just made.
#[derive(Debug)]
pub struct Visitor {
    /// The half of the keys that guests get.
    pub key: String,
    tools: Arc<Tools>,
    programs: PathBuf,
    folder: TempDir,
}

impl Visitor {
    /// With a new pair of keys, and no guest known yet.
    ///
    /// # Errors
    /// The keys, or the programs that use them, cannot be made.
    pub fn new(tools: &Arc<Tools>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let programs = openssh::bin_dir(&Cache::open()?)?;
        let file = folder.path().join("key");
        let made = Command::new(programs.join("ssh-keygen"))
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
            .arg(&file)
            .output()?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "no keys: {said}");
        let key = std::fs::read_to_string(file.with_extension("pub"))?;
        Ok(Self {
            key: key.trim().to_owned(),
            tools: Arc::clone(tools),
            programs,
            folder,
        })
    }

    /// What a command prints that is run in the guest by `rvm ssh`.
    ///
    /// # Errors
    /// Nobody is let in, or the command does not go well.
    pub fn says(&self, handler: &Handler, user: &str, command: &str) -> Result<String> {
        let output = self.ssh(handler, user, command)?.ok();
        let said = output.with_context(|| format!("{command:?} as {user}"))?;
        Ok(said.trim().to_owned())
    }

    /// Runs a command in the guest by `rvm ssh`.
    ///
    /// # Errors
    /// ssh cannot be started or does not end.
    pub fn ssh(&self, handler: &Handler, user: &str, command: &str) -> Result<Output> {
        let [key, known] =
            ["key", "known-hosts"].map(|name| self.folder.path().join(name).display().to_string());
        let target = format!("{user}@vmi/{NAME}");
        let mut words = vec!["rvm", "ssh", &target, "-i", &key, "--known-hosts", &known];
        words.extend(SSH_OPTIONS.iter().flat_map(|option| ["-t", option]));
        words.extend(["-c", command]);
        self.tools.run(&words, &self.environment(handler), "")
    }

    /// The handler's, with the ssh of the release first in the path.
    fn environment(&self, handler: &Handler) -> Vec<(String, String)> {
        let mut environment = handler.environment();
        let all = self.tools.environment();
        let path = all.iter().find(|(name, _)| name == "PATH");
        let rest = path.map(|(_, path)| path.as_str()).unwrap_or_default();
        environment.push(("PATH".to_owned(), format!("{}:{rest}", self.programs.display())));
        environment
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

/// The VMI: its root, a volume of the test's for cloud-init, a disk of the host, and the pod's network.
#[must_use]
pub fn vmi(cloud_init: Value, host: &Path) -> Manifest {
    let mut cloud_init = cloud_init;
    cloud_init["name"] = json!("cloud");
    Manifest(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": NAME},
        "spec": {
            "domain": {
                "devices": {
                    "disks": [
                        {"name": "root", "disk": {"bus": "virtio"}},
                        {"name": "host", "disk": {"bus": "virtio"}, "serial": "HOST"},
                    ],
                    "interfaces": [{"name": "default", "masquerade": {}}],
                },
                "cpu": {"cores": 2},
                "firmware": {"bootloader": {"efi": {"secureBoot": false}}},
                "memory": {"guest": "1Gi"},
            },
            "terminationGracePeriodSeconds": 180,
            "accessCredentials": [],
            "networks": [{"name": "default", "pod": {}}],
            "volumes": [
                {"name": "root", "containerDisk": {"image": IMAGE}},
                cloud_init,
                {"name": "host", "hostDisk": {"path": host, "type": "DiskOrCreate", "capacity": "1Mi"}},
            ],
        },
    }))
}

/// Waits until the guest boots, as is seen at the console, now or once more.
///
/// # Errors
/// The guest does not come so far.
pub fn await_boot(console: &mut Session) -> Result<()> {
    pass(console, BOOT)
}

fn pass(console: &mut Session, milestones: [&str; 3]) -> Result<()> {
    for seen in milestones {
        let came = console.expect(seen, PATIENCE);
        came.with_context(|| format!("the guest never came to {seen:?}"))?;
    }
    Ok(())
}

/// Waits until cloud-init has done its part, as is seen at the console, and sshd listens. The console is where this was seen.
///
/// # Errors
/// The guest does not come so far.
pub fn await_set_up(handler: &Handler) -> Result<Session> {
    let mut console = handler.rvm_on_terminal(&["console", NAME])?;
    await_boot(&mut console)?;
    pass(&mut console, SET_UP)?;
    eventually("SSH server", || {
        let greeted = handler.rvm(&["port-forward", "--stdio=true", &format!("vmi/{NAME}"), "22"])?;
        let said = greeted.text();
        Ok(Look::of(said.starts_with("SSH-2.0-").then_some(()), || said))
    })?;
    Ok(console)
}
