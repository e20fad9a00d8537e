//! The host's initramfs: what the cache keeps, and what each run puts on top.
//!
//! The base is packed once for a kernel and a set of packages. A run appends a second, uncompressed archive with the
//! agent and the programs under test, since Linux unpacks concatenated archives one after the other.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rvm_guests::busybox::Busybox;
use rvm_guests::cpio::{Archive, Device};
use rvm_guests::{Cache, Debian, Kernel, bench, command, tiny};

/// What the host's devices and its guests' backends need. KVM comes last: its words end the kernel's log.
const MODULES: [&str; 8] = [
    "virtio_net",
    "virtio_blk",
    "virtio_rng",
    "tun",
    "bridge",
    "veth",
    "vhost_net",
    "kvm",
];

const SMALL: [&str; 1] = ["iproute2"];
const WITH_EMULATOR: [&str; 2] = ["iproute2", "qemu-system-riscv"];

/// What is taken of the packages: no documentation and no translations.
const FOLDERS: [&str; 4] = ["usr/bin", "usr/sbin", "usr/lib", "usr/share/qemu"];

const INIT: &str = include_str!("init.sh");

/// Where the guests' kernel and initramfs lie in the host.
pub const KERNEL: &str = "/lab/Image";
/// The tiny guest of [`rvm_guests::tiny`] in the host.
pub const TINY: &str = "/lab/tiny.cpio.gz";
/// The measured guest of [`rvm_guests::bench`] in the host.
pub const BENCH: &str = "/lab/bench.cpio.gz";

/// What a host starts from.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its kernel, which is the guests' too.
    pub kernel: PathBuf,
    base: PathBuf,
}

impl Image {
    /// The image from the cache, made where it is missing; with QEMU in it if `emulator` says so.
    pub fn open(cache: &Cache, emulator: bool) -> Result<Self> {
        let kernel = Kernel::debian(cache)?;
        let parts = Parts {
            modules: kernel.modules_for(&MODULES)?,
            busybox: Busybox::debian(cache)?,
            guests: [
                (KERNEL, kernel.image.clone()),
                (TINY, tiny::build(cache)?),
                (BENCH, bench::build(cache)?),
            ],
            root: root(cache, emulator)?,
        };
        let (name, takes) = if emulator {
            ("lab-host-qemu", 20)
        } else {
            ("lab-host", 8)
        };
        let entry = cache.slow_entry(name, &parts.key(), Duration::from_secs(takes), |dir| {
            parts.pack(dir)
        })?;
        Ok(Self {
            kernel: kernel.image,
            base: entry.join("host.cpio.zst"),
        })
    }

    /// Writes the initramfs of one run: the base, and `overlay` on top.
    pub fn write_with(&self, overlay: &Archive, place: &Path) -> Result<()> {
        write_with(&self.base, overlay, place)
    }
}

/// Writes the archive `base` followed by `overlay`, whose files win.
pub fn write_with(base: &Path, overlay: &Archive, place: &Path) -> Result<()> {
    fs::copy(base, place).with_context(|| format!("cannot copy {}", base.display()))?;
    let mut file = File::options().write(true).open(place)?;
    let length = file.seek(SeekFrom::End(0))?;
    // Linux looks for the next archive at a multiple of four, and skips zeros to get there.
    let missing = length.next_multiple_of(4) - length;
    let mut out = BufWriter::new(file);
    out.write_all(&[0; 4][..usize::try_from(missing)?])?;
    overlay.write_to(&mut out)?;
    Ok(out.flush()?)
}

fn root(cache: &Cache, emulator: bool) -> Result<PathBuf> {
    let debian = Debian::of(cache);
    match emulator {
        true => debian.extract_root("lab-root-qemu", "riscv64", &WITH_EMULATOR),
        false => debian.extract_root("lab-root", "riscv64", &SMALL),
    }
}

/// The QEMU program that hosts with an emulator have.
pub fn emulator_in_host(cache: &Cache) -> Result<PathBuf> {
    Ok(root(cache, true)?.join("usr/bin/qemu-system-riscv64"))
}

struct Parts {
    modules: Vec<PathBuf>,
    busybox: Busybox,
    guests: [(&'static str, PathBuf); 3],
    root: PathBuf,
}

impl Parts {
    /// Everything in the cache lies in a folder that is named after what made it.
    fn key(&self) -> String {
        format!(
            "host 1\n{:?}\n{:?}\n{}\n{FOLDERS:?}\n{INIT}",
            self.modules,
            self.guests,
            self.root.display()
        )
    }

    fn pack(&self, dir: &Path) -> Result<()> {
        let plain = dir.join("host.cpio");
        let mut out = BufWriter::new(File::create(&plain)?);
        self.archive()?.write_to(&mut out)?;
        out.flush()?;
        drop(out);
        // One frame, whatever the threads: Linux reads no further than the first.
        command::run(Command::new("zstd").args(["-q", "-T0", "-9", "--rm"]).arg(&plain))
    }

    fn archive(&self) -> Result<Archive> {
        let mut archive = Archive::new();
        for folder in FOLDERS.iter().filter(|folder| self.root.join(folder).is_dir()) {
            archive.tree(folder, &self.root.join(folder))?;
        }
        archive
            .file_from("usr/bin/busybox", 0o755, &self.busybox.program)
            .file("init", 0o755, INIT);
        for applet in &self.busybox.applets {
            archive.link(&format!("usr/lib/applets/{applet}"), "/usr/bin/busybox");
        }
        for (name, target) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib")] {
            archive.link(name, target);
        }
        // Scripts name this shell; busybox is the only one here.
        archive.link("usr/bin/sh", "busybox");
        for folder in [
            "proc", "sys", "dev", "run", "tmp", "root", "var/lib", "etc", "usr/sbin",
        ] {
            archive.folder(folder, 0o755);
        }
        archive
            .device("dev/console", 0o600, Device::Character(5, 1))
            .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n")
            .file("etc/group", 0o644, "root:x:0:\n")
            .file("etc/hosts", 0o644, "127.0.0.1 localhost lab\n")
            .file("etc/resolv.conf", 0o644, "nameserver 10.0.2.3\n");
        for (place, source) in &self.guests {
            archive.file_from(place, 0o644, source);
        }
        let mut order = String::new();
        for module in &self.modules {
            let name = module
                .file_name()
                .context("a module without a name")?
                .to_string_lossy();
            archive.file_from(&format!("lab/modules/{name}"), 0o644, module);
            order.push_str(&name);
            order.push('\n');
        }
        archive.file("lab/modules/order", 0o644, order);
        Ok(archive)
    }
}
