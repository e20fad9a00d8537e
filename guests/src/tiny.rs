//! The guest that tests boot: busybox, the virtio modules and our probe, in an initramfs of a few megabytes.
//!
//! It prints `GUEST-UP uptime=SECONDS` when its modules are in, starts a guest agent, and then does what `rvm.run=` on its command line says:
//!
//! | word | what |
//! | --- | --- |
//! | `poweroff` | powers the machine off |
//! | `reboot` | resets it, every time |
//! | `panic` | crashes the kernel (`panic=1` on the command line makes that a reset) |
//! | `vdso` | reads the clock through the vDSO, says `vdso ok`, powers off |
//! | none of these | a shell on the console with the prompt `guest# ` |

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Result;
use flate2::{Compression, GzBuilder};

use crate::busybox::Busybox;
use crate::cache::{Cache, sha256_of};
use crate::cpio::{Archive, Device};
use crate::cross;
use crate::kernel::Kernel;

/// What the guest can drive: its disks with their file system, network cards, its balloon, sockets to the host.
const MODULES: [&str; 9] = [
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "virtio_balloon",
    "vmw_vsock_virtio_transport",
    "af_packet",
    "crc32c_generic",
    "ext4",
];

/// What it can drive besides where there is a SCSI controller: large, and so left out where there is none.
const SCSI: [&str; 2] = ["virtio_scsi", "sd_mod"];

const INIT: &str = r#"#!/bin/sh
# The whole life of the tiny test guest; guests/src/tiny.rs has the words it knows.
export PATH=/bin PS1='guest# '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec 0</dev/console 1>/dev/console 2>&1
for module in $(cat /modules/order); do
    insmod "/modules/$module" || echo "GUEST-ERROR cannot load $module"
done
for device in /sys/bus/virtio/devices/*/device; do
    read -r id <"$device"
    [ "$id" = 0x0008 ] || continue
    for module in $(cat /modules/scsi/order); do
        insmod "/modules/scsi/$module" || echo "GUEST-ERROR cannot load $module"
    done
done
read -r uptime _ </proc/uptime
echo "GUEST-UP uptime=$uptime"
probe agent &
for word in $(cat /proc/cmdline); do
    case $word in
    rvm.run=poweroff) poweroff -f ;;
    rvm.run=reboot) reboot -f ;;
    rvm.run=panic) echo c >/proc/sysrq-trigger ;;
    rvm.run=vdso) probe vdso; poweroff -f ;;
    esac
done
while :; do
    setsid cttyhack sh
done
"#;

/// The tiny guest's initramfs, gzip'ed. Boot it with the kernel of [`Kernel::debian`].
pub fn build(cache: &Cache) -> Result<PathBuf> {
    let kernel = Kernel::debian(cache)?;
    let busybox = Busybox::debian(cache)?;
    let probe = cross::program(cache, "rvm-guest-init", "rvm-guest-probe")?;
    let key = format!(
        "tiny 5\n{}\n{}\n{MODULES:?}{SCSI:?}\n{INIT}",
        kernel.version,
        sha256_of(&probe)?
    );
    let place = cache.entry("tiny", &key, |dir| {
        let mut archive = base(&busybox, INIT);
        for applet in &busybox.applets {
            archive.link(&format!("bin/{applet}"), "busybox");
        }
        archive.file_from("bin/probe", 0o755, &probe);
        let modules = kernel.modules_for(&MODULES)?;
        add_modules(&mut archive, "modules", "modules/order", &modules);
        let mut scsi = kernel.modules_for(&SCSI)?;
        scsi.retain(|module| {
            !modules
                .iter()
                .any(|other| other.file_name() == module.file_name())
        });
        add_modules(&mut archive, "modules/scsi", "modules/scsi/order", &scsi);
        write_gzipped(&archive, &dir.join("tiny.cpio.gz"))
    })?;
    Ok(place.join("tiny.cpio.gz"))
}

/// What both small guests have: busybox with a shell, the places to mount on, a console and `init`.
pub(crate) fn base(busybox: &Busybox, init: &str) -> Archive {
    let mut archive = Archive::new();
    archive
        .file_from("bin/busybox", 0o755, &busybox.program)
        .link("bin/sh", "busybox")
        .file("init", 0o755, init)
        .folder("proc", 0o555)
        .folder("sys", 0o555)
        .folder("root", 0o700)
        .folder("tmp", 0o1777)
        .device("dev/console", 0o600, Device::Character(5, 1))
        .device("dev/null", 0o666, Device::Character(1, 3));
    archive
}

/// Puts modules into `folder` and the list of their file names, in their order, at `list`.
pub(crate) fn add_modules(archive: &mut Archive, folder: &str, list: &str, modules: &[PathBuf]) {
    let mut order = String::new();
    for module in modules {
        let name = module
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        archive.file_from(&format!("{folder}/{name}"), 0o644, module);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file(list, 0o644, order);
}

/// Writes `archive` gzip'ed, the same bytes every time.
pub(crate) fn write_gzipped(archive: &Archive, path: &Path) -> Result<()> {
    let mut out = GzBuilder::new().write(File::create(path)?, Compression::default());
    archive.write_to(&mut out)?;
    out.finish()?;
    Ok(())
}
