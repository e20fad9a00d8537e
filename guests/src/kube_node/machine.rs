//! A node that is a machine: a disk with the node's root, and what it begins with.
//!
//! ```text
//!   kernel ─► initrd: busybox, drivers, first.sh; /node of each run on top ─► disk: the node's root ─► /node/run.sh
//! ```
//!
//! Nothing of one run is on the disk, so that one serves all. Every driver that pods' networks and rules come to need is loaded
//! at the beginning: there is no table here by which the kernel could ask for one.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{ALSO, BUILT, NodeParts, parts};
use crate::busybox::Busybox;
use crate::cache::Cache;
use crate::cpio::{Archive, Device};
use crate::ext4::{self, Identity};
use crate::kernel::Kernel;

/// What it is, as Debian and Go name it.
const ARCH: &str = "riscv64";

/// Its devices and its disk; what containers, the network plugins, kubelet, kube-proxy and rvm-handler use; KVM. The first is what
/// others look for when they begin, and do not say that they need.
const MODULES: [&str; 42] = [
    "crc32c_generic",
    "virtio_net",
    "virtio_blk",
    "virtio_rng",
    "ext4",
    "overlay",
    "bridge",
    "br_netfilter",
    "veth",
    "tun",
    "vhost_net",
    "nf_tables",
    "nft_compat",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_inet",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_hash",
    "nft_limit",
    "nft_log",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_redir",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "nf_conntrack",
    "nf_nat",
    "xt_MASQUERADE",
    "xt_addrtype",
    "xt_comment",
    "xt_conntrack",
    "xt_mark",
    "xt_multiport",
    "xt_nat",
    "xt_physdev",
    "xt_statistic",
    "xt_tcpudp",
    "ip6_tables",
    "kvm",
];

/// What is taken of the packages: no documentation and no translations.
const FOLDERS: [&str; 6] = [
    "etc",
    "usr/bin",
    "usr/lib",
    "usr/libexec",
    "usr/sbin",
    "usr/share/iproute2",
];

/// What the applets of the first minute are.
const APPLETS: [&str; 8] = [
    "cat",
    "cp",
    "echo",
    "insmod",
    "mount",
    "sh",
    "switch_root",
    "usleep",
];

/// Room for images of guests and of pods; what is not used costs nothing.
const DISK: u64 = 4 << 30;
const IDENTITY: Identity<'static> = Identity {
    label: "node",
    uuid: "6a6f6e65-6e6f-4465-8a2d-726973637636",
    made: 0,
};

const FIRST: &str = include_str!("first.sh");
/// How the disk is filled: part of its name.
const RECIPE: &str = include_str!("machine.rs");

/// A node that is a machine, before it runs.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its kernel.
    pub kernel: PathBuf,
    /// What it begins with, to which each run adds `/node`.
    pub initrd: PathBuf,
    /// Its disk, raw, which is not to be written to.
    pub disk: PathBuf,
    /// The images of its pods' own process and of a shell, as of any node.
    pub parts: NodeParts,
}

/// The machine from the cache, made where it is missing; five minutes the first time.
///
/// # Errors
/// Something that it is made of is not to be had.
pub fn machine(cache: &Cache) -> Result<Machine> {
    let (kernel, parts) = (Kernel::debian(cache)?, parts(cache, ARCH)?);
    let (modules, busybox) = (kernel.modules_for(&MODULES)?, Busybox::debian(cache)?);
    let key = format!("{modules:?}\n{}\n{FIRST}\n{RECIPE}", busybox.program.display());
    let begin = cache.slow_entry("kube-node-initrd", &key, Duration::from_secs(1), |dir| {
        write(&begin(&modules, &busybox)?, &dir.join("initrd.cpio"))
    })?;
    let key = format!("{}\n{}\n{RECIPE}", parts.root.display(), parts.programs.display());
    let disk = cache.slow_entry("kube-node-disk", &key, Duration::from_secs(10), |dir| {
        let archive = dir.join("root.cpio");
        write(&root(&parts)?, &archive)?;
        ext4::write(cache, &archive, &dir.join("disk.img"), DISK, &IDENTITY)?;
        Ok(fs::remove_file(archive)?)
    })?;
    Ok(Machine {
        kernel: kernel.image,
        initrd: begin.join("initrd.cpio"),
        disk: disk.join("disk.img"),
        parts,
    })
}

fn write(archive: &Archive, into: &Path) -> Result<()> {
    let mut out = BufWriter::new(File::create(into)?);
    archive.write_to(&mut out)?;
    Ok(out.flush()?)
}

fn begin(modules: &[PathBuf], busybox: &Busybox) -> Result<Archive> {
    let mut archive = Archive::new();
    archive
        .file("init", 0o755, FIRST)
        .file_from("bin/busybox", 0o755, &busybox.program)
        .device("dev/console", 0o600, Device::Character(5, 1))
        .folder("root", 0o755);
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    let mut order = String::new();
    for module in modules {
        let name = module.file_stem().context("a module without a name")?;
        let name = name.to_string_lossy();
        archive.file_from(&format!("modules/{name}.ko"), 0o644, module);
        order.push_str(&format!("{name}\n"));
    }
    archive.file("modules/order", 0o644, order);
    Ok(archive)
}

fn root(parts: &NodeParts) -> Result<Archive> {
    let mut archive = Archive::new();
    for folder in FOLDERS.iter().filter(|folder| parts.root.join(folder).is_dir()) {
        archive.tree(folder, &parts.root.join(folder))?;
    }
    archive.file_from(&format!("opt/kube/{BUILT}"), 0o755, &parts.programs.join(BUILT));
    for name in ALSO {
        archive.link(&format!("opt/kube/{name}"), BUILT);
    }
    for (name, target) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib")] {
        archive.link(name, target);
    }
    for family in ["iptables", "ip6tables"] {
        for verb in ["", "-save", "-restore"] {
            archive.link(&format!("usr/sbin/{family}{verb}"), "xtables-nft-multi");
        }
    }
    for folder in [
        "dev",
        "etc/cni/net.d",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "var/lib/containerd",
        "var/lib/kubelet",
        "var/log",
    ] {
        archive.folder(folder, 0o755);
    }
    archive
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\n")
        .file("etc/hosts", 0o644, "127.0.0.1 localhost\n")
        .file("etc/resolv.conf", 0o644, "")
        .file("etc/machine-id", 0o644, "72697363763634206e6f646500000001\n");
    Ok(archive)
}
