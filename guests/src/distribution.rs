//! A disk with a whole distribution, as people run one: Debian with systemd, cloud-init, SSH and a guest agent.
//!
//! ```text
//!   GPT
//!    ├─ EFI system partition (FAT)   systemd-boot, the kernel, an initial RAM disk of ours that finds the next one
//!    └─ root (ext4)                  what setup.rs made of the packages
//! ```
//!
//! Nothing about a machine is in it: no host keys, no machine id, no user who can log in. cloud-init makes these, from the disk
//! that it is given (NoCloud or ConfigDrive). The same packages give the same bytes: everything has one date, names and numbers that
//! would be made up at random are fixed.

mod disk;
mod setup;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache::{Cache, sha256_of};
use crate::command::run;
use crate::kernel::Kernel;
use crate::oci::{About, Layer, write_layout};
use crate::toolbox::qemu_img;

/// The date of everything, in seconds since 1970: that of the release.
const EPOCH: u64 = 1_754_697_600;
/// The same as a clock shows it.
const DATE: &str = "2025-08-09T00:00:00";

/// What is installed, with all it depends on.
const PACKAGES: [&str; 21] = [
    "apt",
    "ca-certificates",
    "cloud-guest-utils",
    "cloud-init",
    "dbus",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libpam-systemd",
    "login",
    "openssh-server",
    "passwd",
    "procps",
    "qemu-guest-agent",
    "sudo",
    "systemd-resolved",
    "systemd-sysv",
    "systemd-timesyncd",
    "udev",
];

/// Files of ours in the system.
const FILES: &[(&str, &str)] = &[
    (
        "etc/dpkg/dpkg.cfg.d/without-documentation",
        "\
path-exclude=/usr/share/doc/*\n\
path-include=/usr/share/doc/*/copyright\n\
path-exclude=/usr/share/man/*\n\
path-exclude=/usr/share/info/*\n\
path-exclude=/usr/share/locale/*\n",
    ),
    (
        "etc/fstab",
        "PARTLABEL=root / ext4 errors=remount-ro,x-systemd.growfs 0 1\n",
    ),
    ("etc/hostname", "debian\n"),
    (
        "etc/hosts",
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    ),
    ("etc/cloud/cloud.cfg.d/90-rvm.cfg", CLOUD),
    // A machine need not have a network, and one that has need not wait for all of it.
    (
        "etc/systemd/system/systemd-networkd-wait-online.service.d/any.conf",
        "\
[Unit]\nConditionPathExistsGlob=/sys/class/net/e*\n\n\
[Service]\nExecStart=\nExecStart=/usr/lib/systemd/systemd-networkd-wait-online --any --timeout=30\n",
    ),
    // An emulated machine on a busy host is slow to find its devices; without its console nobody logs in.
    (
        "etc/systemd/system.conf.d/slow.conf",
        "[Manager]\nDefaultDeviceTimeoutSec=10min\n",
    ),
    // Where cloud-init is told nothing of networks.
    (
        "etc/systemd/network/99-default.network",
        "\
[Match]\nType=ether\n\n[Network]\nDHCP=yes\n",
    ),
];

/// Where cloud-init looks, and what it leaves out: making keys of kinds that nobody asks for and locales takes minutes where a
/// processor is emulated.
const CLOUD: &str = "\
datasource_list: [NoCloud, ConfigDrive, None]\n\
ssh_genkeytypes: [ed25519]\n\
locale: false\n\
no_ssh_fingerprints: true\n\
ssh: {emit_keys_to_console: false}\n";

/// What is done to units: what would only cost time in a machine that lives for an hour.
const UNITS: &[&str] = &[
    "enable systemd-networkd.service systemd-resolved.service ssh.service",
    "mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service dpkg-db-backup.timer fstrim.timer",
];

/// The disk in both forms.
#[derive(Debug, Clone)]
pub struct Disks {
    /// Byte by byte, with holes.
    pub raw: PathBuf,
    /// Packed.
    pub qcow2: PathBuf,
}

/// The disk.
pub fn build(cache: &Cache) -> Result<Disks> {
    let kernel = Kernel::debian(cache)?;
    let key = format!("debian-efi 1\n{}\n{}", setup::recipe(&kernel), disk::recipe());
    let place = cache.slow_entry("debian-efi", &key, Duration::from_secs(300), |dir| {
        build_in(cache, &kernel, dir)
    })?;
    Ok(disks(&place))
}

/// Makes the disk in a folder, whatever the cache holds of it.
pub fn build_in(cache: &Cache, kernel: &Kernel, dir: &Path) -> Result<()> {
    let archive = dir.join("system.tar");
    setup::set_up(cache, kernel, dir, &archive)?;
    let Disks { raw, qcow2 } = disks(dir);
    disk::write(cache, kernel, &archive, dir, &raw)?;
    fs::remove_file(archive)?;
    run(Command::new(qemu_img(cache)?)
        .args(["convert", "-c", "-f", "raw", "-O", "qcow2"])
        .arg(raw)
        .arg(qcow2))
}

fn disks(dir: &Path) -> Disks {
    Disks {
        raw: dir.join("debian.img"),
        qcow2: dir.join("debian.qcow2"),
    }
}

/// The disk as the one file of an image, in an image layout: what a VMI's containerDisk names.
pub fn image(cache: &Cache) -> Result<PathBuf> {
    let disk = build(cache)?.qcow2;
    let key = format!("debian-efi-image 1\n{}", sha256_of(&disk)?);
    cache.entry("debian-efi-image", &key, |dir| {
        let bytes = fs::read(&disk).with_context(|| format!("cannot read {}", disk.display()))?;
        let mut layer = Layer::new();
        layer
            .folder("disk", 0o755)?
            .file("disk/debian.qcow2", 0o644, &bytes)?;
        let about = About {
            tag: "debian-efi",
            command: &[],
            made_by: "rvm-guests, from Debian's packages",
        };
        write_layout(dir, &about, layer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_a_distribution_that_is_built_once_more_is_the_same_byte_for_byte() {
        let cache = Cache::open().unwrap();
        let first = build(&cache).unwrap();
        let folder = tempfile::tempdir().unwrap();
        build_in(&cache, &Kernel::debian(&cache).unwrap(), folder.path()).unwrap();
        let second = disks(folder.path());
        let sums = |disks: &Disks| [&disks.raw, &disks.qcow2].map(|disk| sha256_of(disk).unwrap());
        assert_eq!(sums(&second), sums(&first));
    }
}
