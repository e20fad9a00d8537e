//! The emulator that tests, the lab and the demo run: one QEMU of the Debian release, whatever this machine has.
//!
//! It is unpacked beside the machine's own packages and started through its own loader and libraries, so nothing
//! has to be installed and the machine's package sources stay untouched. A found QEMU is never preferred: what
//! is measured and tested must not depend on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use rvm_firmware::Image;

use crate::cache::Cache;
use crate::command::run;
use crate::debian::{Debian, machine_arch};
use crate::foreign::Foreign;

/// What is unpacked. The firmware of an emulated machine is a package of its own, that the second one only points at.
const PACKAGES: [&str; 5] = [
    "qemu-system-riscv",
    "qemu-system-data",
    "opensbi",
    "u-boot-qemu",
    "qemu-efi-riscv64",
];

const QEMU: &str = "qemu-system-riscv64";

/// Its loadable parts and its data files are those that came with it.
const MODULES: &str = "export QEMU_MODULE_DIR=\"$libraries/qemu\"";
const DATA: &str = "-L \"$root/usr/share/qemu\"";

/// The catalogued firmware that QEMU starts a machine with.
const OPENSBI: &str = "opensbi-tcg";

/// Tools in the cache.
#[derive(Debug, Clone)]
pub struct Toolbox {
    root: PathBuf,
    unpacked: PathBuf,
}

impl Toolbox {
    /// The toolbox of `cache`, made where it is missing. Its firmware is checked against the catalog.
    pub fn open(cache: &Cache) -> Result<Self> {
        let arch = machine_arch()?;
        let unpacked = unpacked(cache, &arch)?;
        let images = rvm_firmware::images();
        let key = format!("toolbox 4\n{}\n{images:?}", unpacked.display());
        let root = cache.slow_entry("toolbox", &key, Duration::from_secs(1), |dir| {
            let qemu = Foreign::of(&unpacked)?;
            qemu.write_script(
                &dir.join("bin").join(QEMU),
                &format!("usr/bin/{QEMU}"),
                MODULES,
                DATA,
            )?;
            place_firmware(dir, &unpacked, &images)
        })?;
        Ok(Self { root, unpacked })
    }

    /// The root file system that the emulator is from, with its loader, libraries and data.
    #[must_use]
    pub fn unpacked(&self) -> &Path {
        &self.unpacked
    }

    /// The folder to put first in `PATH`.
    #[must_use]
    pub fn bin_dir(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// The emulator.
    #[must_use]
    pub fn qemu(&self) -> PathBuf {
        self.bin_dir().join(QEMU)
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

/// The root with QEMU and all that it needs, for `arch` as Debian names it.
pub fn unpacked(cache: &Cache, arch: &str) -> Result<PathBuf> {
    Debian::of(cache).extract_root("qemu-root", arch, &PACKAGES)
}

/// QEMU's tool for disk images, of the same release; it is only needed where one is checked.
pub fn qemu_img(cache: &Cache) -> Result<PathBuf> {
    let debian = Debian::of(cache);
    let unpacked = debian.extract_root("qemu-img-root", &machine_arch()?, &["qemu-utils"])?;
    let key = format!("qemu-img 1\n{}", unpacked.display());
    let root = cache.slow_entry("qemu-img", &key, Duration::from_secs(1), |dir| {
        Foreign::of(&unpacked)?.write_script(&dir.join("bin/qemu-img"), "usr/bin/qemu-img", "", "")
    })?;
    Ok(root.join("bin/qemu-img"))
}

fn place_firmware(dir: &Path, unpacked: &Path, images: &[Image]) -> Result<()> {
    fs::create_dir(dir.join("firmware"))?;
    for image in images {
        let source = unpacked.join(&image.path);
        rvm_firmware::verify(&image.name, &source)?;
        // Most of a flash bank is zeros.
        run(Command::new("cp")
            .arg("--sparse=always")
            .arg(&source)
            .arg(dir.join("firmware").join(image.file_name())))?;
    }
    Ok(())
}
