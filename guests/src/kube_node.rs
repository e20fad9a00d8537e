//! What a real Kubernetes node consists of, for tests: a root file system with containerd and what it calls, kubelet with
//! kube-proxy and kube-scheduler, and the two images that pods of tests start from.
//!
//! containerd, runc and the network plugins are the Debian release's, unpacked and never installed: the node has them as its
//! own root. kubelet is built from the Go module `tests/harness/kube`, as the control plane is ([`crate::kube`]), for
//! this machine and for riscv64. Of riscv64 a node is a whole machine, emulated: [`machine`] makes its disk of the same parts.

mod machine;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::busybox::Busybox;
use crate::cache::{Cache, sha256_of};
use crate::command::{output, run};
use crate::debian::{Debian, machine_arch};
use crate::kube;
use crate::oci::{About, Layer, write_platform};

pub use machine::{Machine, machine};

/// What the module's program is built as, and what else it is called.
const BUILT: &str = "kubelet";
const ALSO: [&str; 2] = ["kube-proxy", "kube-scheduler"];

/// The folder of its sources in the module.
const FOLDER: &str = "node";

/// What the driver is built as, and the folder of its sources.
const DRIVER: &str = "disks";

/// What the node's root is made of.
const PACKAGES: [&str; 17] = [
    "containerd",
    "runc",
    "containernetworking-plugins",
    "conntrack",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "iproute2",
    "iptables",
    "kmod",
    "libc-bin",
    "mount",
    "nftables",
    "procps",
    "sed",
    "util-linux",
];

/// The names of the images in a registry.
pub const PAUSE: &str = "pause:1";
/// A shell and its commands, for pods that try something.
pub const BUSYBOX: &str = "busybox:1";

/// The parts of a node.
#[derive(Debug, Clone)]
pub struct NodeParts {
    /// The root file system; a node writes over it, never into it.
    pub root: PathBuf,
    /// The folder with kubelet, kube-proxy and kube-scheduler.
    pub programs: PathBuf,
    /// The image of the process that holds a pod's namespaces.
    pub pause: PathBuf,
    /// The image with a shell.
    pub busybox: PathBuf,
}

/// The parts of a node of this machine's architecture.
pub fn here(cache: &Cache) -> Result<NodeParts> {
    parts(cache, &machine_arch()?)
}

/// The parts of a node of `arch`, as Debian and Go name it.
pub fn parts(cache: &Cache, arch: &str) -> Result<NodeParts> {
    Ok(NodeParts {
        root: Debian::of(cache).extract_root(&format!("node-root-{arch}"), arch, &PACKAGES)?,
        programs: programs(cache, arch)?,
        pause: pause(cache, arch)?,
        busybox: busybox(cache, arch)?,
    })
}

fn programs(cache: &Cache, arch: &str) -> Result<PathBuf> {
    let (module, go) = (kube::module(), kube::go(cache)?);
    let source = sha256_of(&module.join(FOLDER).join("main.go"))?;
    let key = format!("kube-node 1\n{arch}\n{source}\n{}", kube::key(&module, &go)?);
    let place = cache.slow_entry(
        &format!("kube-node-{arch}"),
        &key,
        Duration::from_secs(300),
        |dir| {
            let bin = dir.join("bin");
            kube::build(&go, &module, FOLDER, arch, &bin.join(BUILT))?;
            for name in ALSO {
                fs::hard_link(bin.join(BUILT), bin.join(name))?;
            }
            Ok(())
        },
    )?;
    Ok(place.join("bin"))
}

/// A driver of disks for such a node, by the Container Storage Interface.
pub fn driver(cache: &Cache) -> Result<PathBuf> {
    let (module, go) = (kube::module(), kube::go(cache)?);
    let source = sha256_of(&module.join(DRIVER).join("main.go"))?;
    let key = format!("kube-disks 1\n{source}\n{}", kube::key(&module, &go)?);
    let place = cache.slow_entry("kube-disks", &key, Duration::from_secs(60), |dir| {
        kube::build(&go, &module, DRIVER, &machine_arch()?, &dir.join(DRIVER))
    })?;
    Ok(place.join(DRIVER))
}

/// Kubernetes' own program, from the sources that kubelet is built from.
fn pause(cache: &Cache, arch: &str) -> Result<PathBuf> {
    let compiler = compiler(arch)?;
    cache.entry(
        &format!("pause-{arch}"),
        &format!("pause 1\n{}", kube::VERSION),
        |dir| {
            let (module, go) = (kube::module(), kube::go(cache)?);
            let mut list = Command::new(&go);
            list.args(["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]);
            let said = output(kube::in_module(&mut list, &module))?;
            let sources = PathBuf::from(String::from_utf8_lossy(&said).trim());
            let program = dir.join("pause");
            let mut compile = Command::new(compiler);
            compile.args([
                "-static",
                "-Os",
                "-s",
                &format!("-DVERSION={}", kube::VERSION),
                "-o",
            ]);
            run(compile
                .arg(&program)
                .arg(sources.join("build/pause/linux/pause.c")))?;
            let mut layer = Layer::new();
            layer.file("pause", 0o755, &fs::read(&program)?)?;
            let about = About {
                tag: "1",
                command: &["/pause"],
                made_by: "rvm-guests, from Kubernetes' pause.c",
            };
            write_platform(dir, &about, arch, vec![layer])
        },
    )
}

fn compiler(arch: &str) -> Result<&'static str> {
    match arch {
        "riscv64" => Ok("riscv64-linux-gnu-gcc"),
        arch if arch == machine_arch()? => Ok("cc"),
        _ => bail!("no compiler for {arch} is set up"),
    }
}

fn busybox(cache: &Cache, arch: &str) -> Result<PathBuf> {
    let busybox = Busybox::debian_for(cache, arch)?;
    let key = format!("busybox 1\n{}", sha256_of(&busybox.program)?);
    cache.entry(&format!("busybox-image-{arch}"), &key, |dir| {
        let mut layer = Layer::new();
        layer
            .folder("bin", 0o755)?
            .folder("etc", 0o755)?
            .folder("tmp", 0o1777)?
            .file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n")?
            .file("bin/busybox", 0o755, &fs::read(&busybox.program)?)?;
        for applet in &busybox.applets {
            layer.link(&format!("bin/{applet}"), "busybox")?;
        }
        let about = About {
            tag: "1",
            command: &["/bin/sh"],
            made_by: "rvm-guests, from Debian's busybox-static",
        };
        write_platform(dir, &about, arch, vec![layer])
    })
}
