//! From packages to a system, as an archive of its files: what a distribution's installer does.
//!
//! ```text
//!   packages, unpacked on this machine to plain archives ─┐
//!   files of ours, the kernel's modules ──────────────────┴► disk "input"
//!   the essential packages' files, setup.sh ─► initial RAM disk
//!                     │
//!                     ▼
//!   a guest, emulated, without a network: dpkg unpacks and runs the packages' own scripts, in RAM
//!                     │
//!                     ▼
//!   disk "output": the system, sorted, with one date
//! ```
//!
//! The scripts are riscv64 programs. They run in a machine and not on this one: no privilege is needed, no registration of
//! foreign programs, and whatever they do ends with the guest.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{DATE, EPOCH, FILES, PACKAGES, UNITS};
use crate::busybox::Busybox;
use crate::cache::Cache;
use crate::command::{output, run};
use crate::cpio::{Archive, Device};
use crate::debian::Debian;
use crate::kernel::Kernel;
use crate::tiny::add_modules;
use crate::toolbox::Toolbox;

/// What dpkg and the packages' scripts need before anything is set up, and every system of the release has.
const BASE: [&str; 25] = [
    "base-files",
    "base-passwd",
    "bash",
    "bsdutils",
    "coreutils",
    "dash",
    "debconf",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "libc-bin",
    "login",
    "mawk",
    "ncurses-base",
    "ncurses-bin",
    "perl-base",
    "sed",
    "sysvinit-utils",
    "tar",
    "util-linux",
];

/// What the guest itself needs to see its disks and the date.
const MODULES: [&str; 3] = ["virtio_mmio", "virtio_blk", "rtc_goldfish"];

/// How the paths of the modules begin that a virtual machine has a use for; graphics, sound and boards are not among them.
const MODULE_PATHS: [&str; 26] = [
    "arch/",
    "block/",
    "crypto/",
    "drivers/block/",
    "drivers/cdrom/",
    "drivers/char/",
    "drivers/firmware/qemu_fw_cfg",
    "drivers/md/",
    "drivers/net/bonding/",
    "drivers/net/dummy",
    "drivers/net/geneve",
    "drivers/net/ipvlan/",
    "drivers/net/macvlan",
    "drivers/net/net_failover",
    "drivers/net/tun",
    "drivers/net/veth",
    "drivers/net/virtio_net",
    "drivers/net/vxlan/",
    "drivers/net/wireguard/",
    "drivers/rtc/rtc-goldfish",
    "drivers/scsi/s",
    "drivers/scsi/virtio_scsi",
    "drivers/v",
    "fs/",
    "lib/",
    "net/",
];

const SCRIPT: &str = include_str!("setup.sh");

/// The line at the end of a run that went well.
const DONE: &str = "SETUP-DONE";

/// The longest a run may take; it needs a few minutes on a machine with nothing else to do.
const PATIENCE_SECONDS: &str = "2400";

/// The guest's memory, in which everything is set up.
const MEMORY: &str = "3G";

/// Room for the system's archive; what stays empty takes no room.
const OUTPUT_BYTES: u64 = 2 << 30;

/// All that [`set_up`] depends on, as part of a cache entry's key.
pub fn recipe(kernel: &Kernel) -> String {
    format!(
        "{SCRIPT}\n{BASE:?}\n{PACKAGES:?}\n{FILES:?}\n{UNITS:?}\n{MODULE_PATHS:?}\n{}",
        kernel.version
    )
}

/// Sets the system up and leaves its archive at `archive`; `dir` is for what is needed on the way.
pub fn set_up(cache: &Cache, kernel: &Kernel, dir: &Path, archive: &Path) -> Result<()> {
    let debian = Debian::of(cache);
    let all: Vec<_> = BASE.iter().chain(&PACKAGES).copied().collect();
    let packages = debian.download_root("distribution-debs", "riscv64", &all)?;
    let (input, initrd, console) = (
        dir.join("input.tar"),
        dir.join("setup.cpio"),
        dir.join("console.log"),
    );
    write_input(&packages, kernel, &input)?;
    write_initrd(cache, &debian, kernel, &initrd)?;
    File::create(archive)?.set_len(OUTPUT_BYTES)?;
    let booted = boot(cache, kernel, &initrd, [&input, archive], &console);
    let said = fs::read_to_string(&console).unwrap_or_default();
    booted.with_context(|| last_lines(&said))?;
    ensure!(
        said.lines().any(|line| line.trim() == DONE),
        "the packages were not set up: {}",
        last_lines(&said)
    );
    for file in [input, initrd] {
        fs::remove_file(file)?;
    }
    Ok(())
}

/// What a guest said last.
fn last_lines(said: &str) -> String {
    let lines: Vec<_> = said.lines().rev().take(15).map(str::trim_end).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn boot(cache: &Cache, kernel: &Kernel, initrd: &Path, disks: [&Path; 2], console: &Path) -> Result<()> {
    let toolbox = Toolbox::open(cache)?;
    let mut qemu = Command::new("timeout");
    qemu.arg(PATIENCE_SECONDS).arg(toolbox.qemu());
    qemu.args([
        "-M", "virt", "-smp", "2", "-m", MEMORY, "-display", "none", "-nic", "none",
    ]);
    qemu.args(["-monitor", "none", "-no-reboot", "-accel", "tcg,thread=multi"]);
    qemu.args(["-rtc", &format!("base={DATE}")]);
    qemu.arg("-serial")
        .arg(format!("file:{}", commas_doubled(console)));
    qemu.arg("-bios").arg(toolbox.opensbi());
    qemu.arg("-kernel").arg(&kernel.image);
    qemu.arg("-initrd").arg(initrd);
    let append = format!(
        "console=ttyS0 quiet panic=-1 rootfstype=ramfs rdinit=/init SOURCE_DATE_EPOCH={EPOCH} KERNEL={}",
        kernel.version
    );
    qemu.args(["-append", &append]);
    for (name, disk) in ["input", "output"].into_iter().zip(disks) {
        let file = commas_doubled(disk);
        qemu.arg("-drive").arg(format!(
            "file={file},format=raw,if=none,id={name},discard=unmap,cache=unsafe"
        ));
        qemu.arg("-device")
            .arg(format!("virtio-blk-device,drive={name},serial={name}"));
    }
    run(&mut qemu)
}

/// QEMU ends a value at a comma.
fn commas_doubled(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The initial RAM disk: what runs the packages' scripts until the packages themselves are there.
fn write_initrd(cache: &Cache, debian: &Debian, kernel: &Kernel, path: &Path) -> Result<()> {
    let base = debian.extract_root("distribution-base", "riscv64", &BASE)?;
    let busybox = Busybox::debian(cache)?;
    let mut archive = Archive::new();
    archive.tree("", &base)?;
    archive
        .file("init", 0o755, SCRIPT)
        .file_from("build/busybox", 0o755, &busybox.program)
        .file("build/units", 0o644, UNITS.join("\n") + "\n")
        .device("dev/console", 0o600, Device::Character(5, 1))
        .device("dev/null", 0o666, Device::Character(1, 3));
    for folder in ["proc", "sys", "run"] {
        archive.folder(folder, 0o755);
    }
    archive.folder("tmp", 0o1777);
    add_modules(
        &mut archive,
        "build/modules",
        "build/order",
        &kernel.modules_for(&MODULES)?,
    );
    let mut out = io::BufWriter::new(File::create(path)?);
    Ok(archive.write_to(&mut out)?)
}

/// The disk "input": `debs/` and `files/`.
fn write_input(packages: &Path, kernel: &Kernel, path: &Path) -> Result<()> {
    let mut tar = tar::Builder::new(io::BufWriter::new(File::create(path)?));
    let mut debs: Vec<PathBuf> = fs::read_dir(packages)?
        .map(|file| Ok(file?.path()))
        .collect::<io::Result<_>>()?;
    debs.sort();
    for deb in debs {
        let name = deb.file_name().unwrap_or_default().to_string_lossy();
        put(&mut tar, &format!("debs/{name}"), 0o644, &plain(&deb)?)?;
    }
    for (name, content) in FILES {
        let mode = if content.starts_with("#!") { 0o755 } else { 0o644 };
        put(&mut tar, &format!("files/{name}"), mode, content.as_bytes())?;
    }
    let into = format!("files/usr/lib/modules/{}", kernel.version);
    for (name, file) in modules(kernel)? {
        put(&mut tar, &format!("{into}/{name}"), 0o644, &fs::read(file)?)?;
    }
    tar.into_inner()?;
    Ok(())
}

fn put(tar: &mut tar::Builder<impl io::Write>, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    header.set_mtime(EPOCH);
    tar.append_data(&mut header, path, bytes)
        .with_context(|| format!("cannot put {path} into the archive"))
}

/// The package with its parts unpacked: what is packed here is unpacked faster here than by an emulated machine.
///
/// A package is an `ar` archive of a version, an archive with its scripts, and one with its files.
fn plain(deb: &Path) -> Result<Vec<u8>> {
    let part = |option: &str| output(Command::new("dpkg-deb").arg(option).arg(deb));
    let (control, data) = (part("--ctrl-tarfile")?, part("--fsys-tarfile")?);
    let mut package = b"!<arch>\n".to_vec();
    for (name, bytes) in [
        ("debian-binary", &b"2.0\n"[..]),
        ("control.tar", &control),
        ("data.tar", &data),
    ] {
        let header = format!(
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
            0,
            0,
            0,
            100_644,
            bytes.len()
        );
        package.extend_from_slice(header.as_bytes());
        package.extend_from_slice(bytes);
        // Every part begins at an even place.
        package.resize(package.len().next_multiple_of(2), b'\n');
    }
    Ok(package)
}

/// The modules that are taken, and what `depmod` reads besides, by their paths below the kernel's folder.
fn modules(kernel: &Kernel) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let root = kernel.modules.join("kernel");
    list(&root, "", &mut found)?;
    found.retain(|(name, _)| MODULE_PATHS.iter().any(|start| name.starts_with(start)));
    let lists = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];
    let lists = lists.map(|name| (name.to_owned(), kernel.modules.join(name)));
    let modules = found
        .into_iter()
        .map(|(name, path)| (format!("kernel/{name}"), path));
    Ok(modules.chain(lists).collect())
}

fn list(folder: &Path, name: &str, found: &mut Vec<(String, PathBuf)>) -> Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let inside = format!("{name}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{inside}/"), found)?;
        } else {
            found.push((inside, entry.path()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_a_guest_said_is_repeated_and_not_all_of_it() {
        let said: String = (0..40).map(|line| format!("line {line}\r\n")).collect();
        let end = last_lines(&said);
        assert!(end.starts_with("line 25\n") && end.ends_with("line 39"), "{end}");
    }

    #[test]
    fn a_package_is_the_same_one_when_its_parts_are_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("DEBIAN")).unwrap();
        fs::write(
            root.join("DEBIAN/control"),
            "Package: one\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.com>\nDescription: d\n",
        )
        .unwrap();
        fs::write(root.join("odd"), "odd").unwrap();
        let deb = folder.path().join("one.deb");
        run(Command::new("dpkg-deb")
            .args(["-b", "--root-owner-group"])
            .arg(&root)
            .arg(&deb))
        .unwrap();
        let unpacked = folder.path().join("plain.deb");
        fs::write(&unpacked, plain(&deb).unwrap()).unwrap();
        let shown = |deb: &Path| output(Command::new("dpkg-deb").arg("--info").arg(deb)).unwrap();
        let name = output(Command::new("dpkg-deb").arg("--show").arg(&unpacked)).unwrap();
        assert_eq!(name, b"one\t1\n");
        assert!(String::from_utf8_lossy(&shown(&unpacked)).contains("Architecture: all"));
        let files = output(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&unpacked)).unwrap();
        assert!(files.windows(5).any(|bytes| bytes == b"./odd"));
    }

    #[test]
    fn a_comma_in_a_path_does_not_end_a_value_of_qemu() {
        assert_eq!(commas_doubled(Path::new("/a,b")), "/a,,b");
    }
}
