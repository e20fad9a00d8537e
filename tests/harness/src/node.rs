//! A real node: containerd, kubelet and kube-proxy in namespaces of their own, and a registry beside them.
//!
//! ```text
//!   this machine                     │  the node's namespaces (mount, network, processes, cgroups)
//!   test, kubectl ── 127.0.0.1:P ────┼── 198.18.0.1:6443  kube-apiserver, etcd, controllers, scheduler
//!   push          ── 127.0.0.1:Q ────┼── 198.18.0.1:5000  registry
//!                                    │  containerd ─ kubelet ─ kube-proxy;  pods 198.18.1.0/24, Services 198.18.2.0/24
//! ```
//!
//! Its life: `launch.sh` enters cgroups of the node's own and new namespaces, `set-up.sh` lays a root of Debian's packages
//! there, which is written over and never into, and `run.sh` starts containerd, and kubelet once the control plane is
//! there. The network has no way out. Ports of it are reached from here by a [`Lead`], which dials from inside.
//!
//! Dropping it kills the first process of the namespace, and with it the kernel ends every other one and takes mounts,
//! links and rules away; the cgroups are removed by a [`Sweeper`], also when the test was killed.

mod devices;
mod lead;
pub mod riscv64;
mod settings;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use rvm_guests::kube_node::{self, BUSYBOX, NodeParts, PAUSE};
use rvm_guests::{Cache, push, registry};
use rvm_outer::Output;
use serde_json::json;
use tempfile::TempDir;

pub use lead::Lead;
pub use riscv64::Riscv64Node;

use settings::Settings;

use self::devices::Devices;
use crate::patience::{Look, eventually};
use crate::process::Process;
use crate::sweep::Sweeper;
use crate::tools::{Tools, shown};

/// Its name in the cluster.
pub const NODE: &str = "n1";

/// Where it is reached by itself and by its pods.
pub const ADDRESS: &str = "198.18.0.1";

/// Where its registry listens: images are named so in pods.
pub const REGISTRY: &str = "198.18.0.1:5000";

const LAUNCH: &str = include_str!("node/launch.sh");

/// Scripts of its folder.
const SCRIPTS: [(&str, &str); 2] = [
    ("set-up.sh", include_str!("node/set-up.sh")),
    ("run.sh", include_str!("node/run.sh")),
];

/// How `nsenter` gets into it, and what is found there.
const INSIDE: [&str; 9] = [
    "-m",
    "-n",
    "-u",
    "-i",
    "-p",
    "-C",
    "--",
    "env",
    "PATH=/usr/sbin:/usr/bin:/opt/kube",
];

/// What volumes name that its driver of disks has.
pub const DRIVER: &str = "disks.rvm.test";

/// The addresses of its pods.
const PODS: &str = "198.18.1.0/24";

/// Ends what is left of it: `$1` is the folder, `$2` the name of its cgroups.
const SWEEP: &str = r#"
read -r end
rounds=600
while [ $rounds -gt 0 ]; do
    rounds=$((rounds - 1))
    find /sys/fs/cgroup -depth -type d -path "*/$2*" -exec rmdir {} + 2>/dev/null
    [ "$(find /sys/fs/cgroup -maxdepth 2 -type d -name "$2")" ] || { rm -rf --one-file-system "$1" && break; }
    sleep 0.1
done
"#;

/// A running node. Dropping it leaves nothing.
#[derive(Debug)]
pub struct Node {
    registry: Process,
    first: Process,
    /// The number of its first process, seen from here.
    pid: u32,
    to_registry: Lead,
    cgroups: String,
    _sweeper: Sweeper,
    /// Put back last.
    _devices: Devices,
    folder: TempDir,
    tools: Arc<Tools>,
}

impl Node {
    /// Starts one with containerd and a registry, which has the images [`PAUSE`] and [`BUSYBOX`]. kubelet waits for
    /// [`Node::join`].
    ///
    /// # Errors
    /// It does not start: who is not root cannot make one.
    pub(crate) fn start(tools: &Arc<Tools>) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a real node needs root: namespaces, mounts and cgroups"
        );
        let cache = Cache::open()?;
        let devices = Devices::of_this_machine(&cache.root().join("node-devices"))?;
        let parts = kube_node::here(&cache)?;
        let folder = tempfile::Builder::new().prefix("rvm-kubelet-").tempdir()?;
        let name = folder.path().file_name().context("a folder has a name")?;
        let cgroups = name.to_string_lossy().into_owned();
        let sweeper = Sweeper::start_by(SWEEP, &[&shown(folder.path()), &cgroups])?;
        write_files(folder.path())?;
        let (first, pid) = launch(folder.path(), &cgroups, &parts)?;
        let registry = start_registry(folder.path(), &net_of(pid), &cache)?;
        let node = Self {
            to_registry: Lead::to(&net_of(pid), REGISTRY)?,
            registry,
            first,
            pid,
            cgroups,
            _sweeper: sweeper,
            _devices: devices,
            folder,
            tools: Arc::clone(tools),
        };
        node.push(&parts.pause, PAUSE)?;
        node.push(&parts.busybox, BUSYBOX)?;
        Ok(node)
    }

    /// What runs a program in its network, and nothing else of it: the control plane's programs.
    pub(crate) fn in_network(&self) -> Vec<String> {
        vec![
            "nsenter".to_owned(),
            format!("--net={}", net_of(self.pid).display()),
            "--".to_owned(),
        ]
    }

    /// Where its files are, here and inside.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts kubelet and kube-proxy, whose credentials lie in the folder by now.
    pub(crate) fn join(&self) -> Result<()> {
        Ok(fs::write(self.folder.path().join("join"), "")?)
    }

    /// Pushes an image layout to its registry: `busybox:1` is `198.18.0.1:5000/busybox:1` for pods, and by any other
    /// registry's name as well.
    ///
    /// # Errors
    /// The registry's.
    pub fn push(&self, layout: &Path, name: &str) -> Result<()> {
        let reference = format!("127.0.0.1:{}/{name}", self.to_registry.port());
        push::push(layout, &reference, None)
    }

    /// Pushes every image that a layout names to its registry, under those names.
    ///
    /// # Errors
    /// The registry's.
    pub fn push_named(&self, layout: &Path) -> Result<()> {
        let registry = format!("127.0.0.1:{}", self.to_registry.port());
        push::push_named(layout, &registry, None, None).map(drop)
    }

    /// The same under another tag each.
    ///
    /// # Errors
    /// The registry's.
    pub fn push_named_as(&self, layout: &Path, tag: &str) -> Result<()> {
        let registry = format!("127.0.0.1:{}", self.to_registry.port());
        push::push_named(layout, &registry, None, Some(tag)).map(drop)
    }

    /// Puts copies of files where a pod's `hostPath` finds them: the folder's path on the node.
    ///
    /// # Errors
    /// The file system's.
    pub fn put(&self, folder: &str, files: &[(&str, &Path)]) -> Result<PathBuf> {
        let place = self.folder.path().join("put").join(folder);
        fs::create_dir_all(&place)?;
        for (name, file) in files {
            fs::copy(file, place.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        Ok(place)
    }

    /// The port of its registry on loopback, for who pushes by himself.
    #[must_use]
    pub fn registry_port(&self) -> u16 {
        self.to_registry.port()
    }

    /// Starts a driver of disks on it, which kubelet knows when this returns: volumes of the CSI driver [`DRIVER`] are below this folder of
    /// the node.
    ///
    /// # Errors
    /// It does not start.
    pub fn drive_disks(&self, below: &Path) -> Result<Process> {
        let program = kube_node::driver(&Cache::open()?)?;
        let here = self.put("driver", &[("disks", &program)])?;
        let log = self.folder.path().join("disks.log");
        let target = self.pid.to_string();
        let by = [&["nsenter", "-t", &target][..], &INSIDE].concat();
        let by: Vec<String> = by.into_iter().map(str::to_owned).collect();
        let mut process = Process::start_by(&by, &here.join("disks"), &log, |command| {
            command.arg(below).args(["/var/lib/kubelet", NODE]);
        })?;
        eventually("driver that kubelet knows", || {
            process.must_live()?;
            let said = process.said();
            Ok(Look::of(said.contains("registered: true").then_some(()), || {
                said.clone()
            }))
        })?;
        Ok(process)
    }

    /// A port on loopback that leads to an address in its network: a pod's, a Service's, its own.
    ///
    /// # Errors
    /// No port is to be had.
    pub fn lead(&self, to: &str) -> Result<Lead> {
        Lead::to(&net_of(self.pid), to)
    }

    /// Runs a command on the node, as its root.
    ///
    /// # Errors
    /// It cannot be run; how it ended is for the caller to judge.
    pub fn run(&self, argv: &[&str]) -> Result<Output> {
        let target = self.pid.to_string();
        let enter = ["nsenter", "-t", &target];
        self.tools.run(&[&enter[..], &INSIDE, argv].concat(), &[], "")
    }

    /// The number of its first process, seen from here.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The name of its cgroups, each directly below a hierarchy's root.
    #[must_use]
    pub fn cgroups(&self) -> &str {
        &self.cgroups
    }

    /// Fails, with last words, if one of its programs has ended.
    ///
    /// # Errors
    /// It has.
    pub fn must_live(&mut self) -> Result<()> {
        self.first.must_live()?;
        self.registry.must_live()?;
        match fs::read_to_string(self.folder.path().join("ended")) {
            Ok(ended) => Err(self.complaint(&anyhow!("{}", ended.trim()))),
            Err(_) => Ok(()),
        }
    }

    /// An error about it, with the last words of its programs.
    #[must_use]
    pub fn complaint(&self, error: &anyhow::Error) -> anyhow::Error {
        let mut text = format!("the node: {error:#}");
        for name in ["containerd", "kubelet", "kube-proxy"] {
            let log = fs::read(self.folder.path().join(format!("{name}.log"))).unwrap_or_default();
            let from = log.len().saturating_sub(LAST_WORDS);
            let last = String::from_utf8_lossy(&log[from..]).into_owned();
            text.push_str(&format!("\n--- {name} said:\n{last}"));
        }
        anyhow!("{text}")
    }
}

/// How much of each program's log is shown when something goes wrong.
const LAST_WORDS: usize = 3000;

fn net_of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

fn write_files(folder: &Path) -> Result<()> {
    for (name, text) in SCRIPTS {
        fs::write(folder.join(name), text)?;
    }
    let settings = Settings {
        name: NODE,
        address: ADDRESS,
        pods: PODS,
        pause: PAUSE,
        folder: &shown(folder),
    };
    for (name, text) in settings.files() {
        let place = folder.join(name);
        fs::create_dir_all(place.parent().context("a file lies in a folder")?)?;
        fs::write(place, text)?;
    }
    Ok(())
}

/// Starts the namespaces' first process and waits for the network; also says its number.
fn launch(folder: &Path, cgroups: &str, parts: &NodeParts) -> Result<(Process, u32)> {
    let mut first = Process::start(Path::new("/bin/sh"), &folder.join("node.log"), |sh| {
        sh.args(["-c", LAUNCH, "launch", &shown(folder), cgroups]);
        sh.args([&parts.root, &parts.programs]);
    })?;
    let pid = eventually("network of the node", || {
        first.must_live()?;
        let outer = first.id();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap_or_default();
        let child = children
            .split_whitespace()
            .next()
            .and_then(|child| child.parse().ok());
        let up = folder.join("up").exists();
        Ok(Look::of(child.filter(|_| up), || first.said()))
    });
    match pid {
        Ok(pid) => Ok((first, pid)),
        Err(error) => Err(first.complaint(&error)),
    }
}

fn start_registry(folder: &Path, net: &Path, cache: &Cache) -> Result<Process> {
    let program = registry::server(cache)?;
    let config = json!({
        "version": 0.1, "log": {"level": "info"}, "http": {"addr": "0.0.0.0:5000"},
        "storage": {"filesystem": {"rootdirectory": "registry"}},
    });
    fs::write(folder.join("registry.yml"), config.to_string())?;
    let by = [
        "nsenter".to_owned(),
        format!("--net={}", net.display()),
        "--".to_owned(),
    ];
    let mut process = Process::start_by(&by, &program, &folder.join("registry.log"), |command| {
        command.args(["serve", "registry.yml"]).current_dir(folder);
    })?;
    eventually("listening registry", || {
        process.must_live()?;
        let said = process.said();
        Ok(Look::of(said.contains("listening on ").then_some(()), || {
            said.clone()
        }))
    })?;
    Ok(process)
}
