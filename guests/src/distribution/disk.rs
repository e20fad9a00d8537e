//! The disk around the system: partitions, what firmware starts, and the initial RAM disk that finds the root.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result};

use super::EPOCH;
use crate::busybox::Busybox;
use crate::cache::Cache;
use crate::efi::{loader, write_fat};
use crate::ext4;
use crate::gpt::{self, Kind, Partition};
use crate::kernel::Kernel;
use crate::tiny::{add_modules, base, write_gzipped};

/// What the root's partition is called, and so found by.
const ROOT: &str = "root";

/// What has to be there before the root is. The last is for the sockets by which the host reaches SSH: systemd looks for them before
/// it loads modules.
const MODULES: [&str; 7] = [
    "rtc_goldfish",
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "crc32c_generic",
    "ext4",
    "vmw_vsock_virtio_transport",
];

const INIT: &str = r#"#!/bin/sh
# Finds the partition that is called "root" and starts the system in it; guests/src/distribution/disk.rs wrote this.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules/order); do
    insmod "/modules/$module"
done
tries=100
until name=$(grep -lx PARTNAME=root /sys/class/block/*/uevent); do
    tries=$((tries - 1))
    if [ "$tries" = 0 ]; then
        echo 'no partition is called "root"'
        exec setsid cttyhack sh
    fi
    sleep 0.1
done
set -- $name
name=${1%/uevent}
mkdir -p /root
mount -t ext4 -o ro "/dev/${name##*/}" /root
umount /sys
umount /proc
# What is exported here is not the system's business.
exec env -i HOME=/ TERM=linux /bin/busybox switch_root /root /sbin/init
"#;

const LOADER_CONF: &str = "default debian.conf\ntimeout 0\n";
const ENTRY: &str = "title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions root=PARTLABEL=root ro console=ttyS0 loglevel=4\n";

/// Size of the EFI system partition: a kernel, an initial RAM disk, and room for the next ones.
const ESP: u64 = 64 << 20;

/// Room that is free in the root's file system.
const FREE: u64 = 512 << 20;

const IDENTITY: ext4::Identity<'_> = ext4::Identity {
    label: ROOT,
    uuid: "72766d00-0000-4000-8000-000000000001",
    made: EPOCH,
};

/// Identifiers of the disk and its partitions begin with this.
const SEED: u32 = 0x7276_6d01;

/// All of this file that decides what is on the disk, as part of a cache entry's key.
pub fn recipe() -> String {
    format!("{INIT}\n{LOADER_CONF}\n{ENTRY}\n{MODULES:?}\n{ESP} {FREE}\n{IDENTITY:?}\n{SEED}")
}

/// Writes the disk `raw` with the system of `archive`; `dir` is for what is needed on the way.
pub fn write(cache: &Cache, kernel: &Kernel, archive: &Path, dir: &Path, raw: &Path) -> Result<()> {
    let initrd = dir.join("initrd.img");
    write_initrd(cache, kernel, &initrd)?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let files = [
        ("EFI/BOOT/BOOTRISCV64.EFI", read(&loader(cache)?)?),
        ("loader/loader.conf", LOADER_CONF.into()),
        ("loader/entries/debian.conf", ENTRY.into()),
        ("vmlinuz", read(&kernel.image)?),
        ("initrd.img", read(&initrd)?),
    ];
    let (esp, root) = (dir.join("esp.img"), dir.join("root.img"));
    fs::write(&esp, write_fat(ESP, &files)?)?;
    let content = blocks_of(archive)?;
    // Inodes and the journal want their share.
    let size = (content + content / 8 + FREE).next_multiple_of(64 << 20);
    ext4::write(cache, archive, &root, size, &IDENTITY)?;
    let partition = |name, kind, content: &Path| Partition {
        name,
        kind,
        content: content.to_owned(),
    };
    let partitions = [
        partition("esp", Kind::EfiSystem, &esp),
        partition(ROOT, Kind::RootRiscv64, &root),
    ];
    gpt::write(&File::create(raw)?, SEED, &partitions)?;
    for file in [initrd, esp, root] {
        fs::remove_file(file)?;
    }
    Ok(())
}

fn write_initrd(cache: &Cache, kernel: &Kernel, path: &Path) -> Result<()> {
    let busybox = Busybox::debian(cache)?;
    let mut archive = base(&busybox, INIT);
    for applet in &busybox.applets {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    add_modules(
        &mut archive,
        "modules",
        "modules/order",
        &kernel.modules_for(&MODULES)?,
    );
    write_gzipped(&archive, path)
}

/// How much room the files of an archive take in blocks of 4 KiB.
fn blocks_of(archive: &Path) -> Result<u64> {
    const BLOCK: u64 = 4096;
    let mut files = tar::Archive::new(BufReader::new(File::open(archive)?));
    let mut bytes = 0;
    for entry in files.entries()? {
        bytes += entry?.header().entry_size()?.next_multiple_of(BLOCK);
    }
    Ok(bytes)
}
