//! The emulator that tests, the lab and the demo run: one QEMU of the Debian release, whatever this machine has.
//!
//! It is unpacked beside the machine's own packages and started through its own loader and libraries, so nothing
//! has to be installed and the machine's package sources stay untouched. A found QEMU is never preferred: what
//! is measured and tested must not depend on the machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cache::Cache;
use crate::debian::{Debian, machine_arch};

/// What is unpacked. The firmware is a package of its own, that the second one only points at.
const PACKAGES: [&str; 3] = ["qemu-system-riscv", "qemu-system-data", "opensbi"];

/// The catalogued firmware that QEMU starts a machine with.
const OPENSBI: &str = "opensbi-tcg";

/// Tools in the cache.
#[derive(Debug, Clone)]
pub struct Toolbox {
    root: PathBuf,
}

impl Toolbox {
    /// The toolbox of `cache`, made where it is missing. Its firmware is checked against the catalog.
    pub fn open(cache: &Cache) -> Result<Self> {
        let arch = machine_arch()?;
        let debian = Debian::of(cache);
        let unpacked = debian.extract_root("qemu-root", &arch, &PACKAGES)?;
        let key = format!("toolbox 2\n{}", unpacked.display());
        let root = cache.slow_entry("toolbox", &key, Duration::from_secs(1), |dir| {
            write_wrapper(dir, &unpacked)?;
            place_firmware(dir, &unpacked)
        })?;
        Ok(Self { root })
    }

    /// The folder to put first in `PATH`.
    #[must_use]
    pub fn bin_dir(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The emulator.
    #[must_use]
    pub fn qemu(&self) -> PathBuf {
        self.bin_dir().join("qemu-system-riscv64")
    }

    /// The folder with the catalogued firmware files, named as the catalog names them.
    #[must_use]
    pub fn firmware_dir(&self) -> PathBuf {
        self.root.join("firmware")
    }

    /// OpenSBI for an emulated machine: what `-bios` takes.
    #[must_use]
    pub fn opensbi(&self) -> PathBuf {
        self.firmware_dir().join(format!("{OPENSBI}.bin"))
    }
}

fn write_wrapper(dir: &Path, unpacked: &Path) -> Result<()> {
    let loader = loader(unpacked)?;
    let libraries = library_folder(&loader_arch(unpacked)?);
    let root = unpacked
        .file_name()
        .context("the unpacked QEMU has no name")?
        .to_string_lossy();
    let text = format!(
        "#!/bin/sh\n\
         # QEMU with the loader, libraries and data that belong to it.\n\
         root=$(dirname \"$(readlink -f \"$0\")\")/../../{root}\n\
         export QEMU_MODULE_DIR=\"$root/{libraries}/qemu\"\n\
         exec \"$root/{loader}\" --argv0 qemu-system-riscv64 --library-path \"$root/{libraries}:$root/usr/lib\" \\\n    \
         \"$root/usr/bin/qemu-system-riscv64\" -L \"$root/usr/share/qemu\" \"$@\"\n"
    );
    fs::create_dir(dir.join("bin"))?;
    let place = dir.join("bin/qemu-system-riscv64");
    fs::write(&place, text)?;
    Ok(fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?)
}

/// Where the loader lies below the root: `usr/lib64` or `usr/lib`, by architecture.
fn loader(unpacked: &Path) -> Result<String> {
    for folder in ["usr/lib64", "usr/lib"] {
        let Ok(found) = fs::read_dir(unpacked.join(folder)) else {
            continue;
        };
        let names = found
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        if let Some(name) = names.into_iter().find(|name| name.starts_with("ld-linux-")) {
            return Ok(format!("{folder}/{name}"));
        }
    }
    anyhow::bail!("{} holds no loader", unpacked.display())
}

/// The multiarch name of the unpacked libraries, such as `x86_64-linux-gnu`.
fn loader_arch(unpacked: &Path) -> Result<String> {
    let folders = fs::read_dir(unpacked.join("usr/lib")).context("the unpacked QEMU has no usr/lib")?;
    let names = folders
        .flatten()
        .filter(|entry| entry.path().join("libc.so.6").exists());
    let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .next()
        .with_context(|| format!("{} holds no C library", unpacked.display()))
}

fn library_folder(multiarch: &str) -> String {
    format!("usr/lib/{multiarch}")
}

fn place_firmware(dir: &Path, unpacked: &Path) -> Result<()> {
    let image = rvm_firmware::find(OPENSBI).with_context(|| format!("the catalog has no {OPENSBI}"))?;
    let source = unpacked.join(&image.path);
    rvm_firmware::verify(OPENSBI, &source)?;
    fs::create_dir(dir.join("firmware"))?;
    let copied = fs::copy(&source, dir.join(format!("firmware/{OPENSBI}.bin")))?;
    ensure!(copied > 0, "{} is empty", source.display());
    Ok(())
}
