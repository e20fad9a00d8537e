//! Bodies of tests about what is booted besides a plain kernel, written once for both backends.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use rvm_guests::oci::{About, Layer, write_layout};
use rvm_guests::{Cache, Toolbox, efi};
use rvm_outer::shell::{PATIENCE, switch_off, until_ready};
use rvm_outer::{Host, Session};
use rvmm_spec::{Boot, Disk, Firmware, MemorySize, Spec, Vars};

use crate::boot::spawn;

/// Where firmware and the disk that it boots lie on a host.
#[derive(Debug, Clone)]
pub struct Places {
    folder: PathBuf,
    disk: PathBuf,
}

impl Places {
    /// On this machine: in the cache.
    pub fn here() -> Result<Self> {
        let cache = Cache::open()?;
        Ok(Self {
            folder: Toolbox::open(&cache)?.firmware_dir(),
            disk: efi::build(&cache)?,
        })
    }

    /// The files, and where the lab gets them.
    pub fn for_the_lab(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let firmware = names.iter().map(|name| self.folder.join(name));
        let files = firmware.chain([self.disk.clone()]);
        files
            .map(|file| {
                let name = file
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                Ok((format!("/lab/{name}"), fs::read(&file)?))
            })
            .collect()
    }

    /// In the lab.
    pub fn lab() -> Self {
        Self {
            folder: "/lab".into(),
            disk: "/lab/efi.img".into(),
        }
    }

    /// U-Boot, as its catalogued file.
    pub fn uboot(&self) -> Boot {
        Boot::firmware(Firmware {
            image: self.folder.join("uboot.bin"),
            vars: None,
        })
    }

    /// EDK2 with a variable store that is made in `folder`.
    pub fn edk2(&self, folder: &Path) -> Boot {
        Boot::firmware(Firmware {
            image: self.folder.join("edk2-code.fd"),
            vars: Some(Vars {
                file: folder.join("vars.fd"),
                template: Some(self.folder.join("edk2-vars.fd")),
            }),
        })
    }
}

/// What a user's own firmware says first, and what the catalogued one says there.
pub const OWN: &str = "U-Boat 20";
const CATALOGUED: &str = "U-Boot 20";
/// Where it lies in its image.
pub const OWN_PATH: &str = "/firmware/u-boat.bin";

/// Writes the image of a user's own firmware as a layout into `folder`: U-Boot under another name, so that none of ours can be taken
/// for it.
///
/// # Errors
/// The file system's, or that U-Boot does not say its name.
pub fn own_image(folder: &Path) -> Result<()> {
    let ours = fs::read(Toolbox::open(&Cache::open()?)?.firmware_dir().join("uboot.bin"))?;
    let mut own = ours.clone();
    let places: Vec<usize> = ours
        .windows(CATALOGUED.len())
        .enumerate()
        .filter_map(|(at, bytes)| (bytes == CATALOGUED.as_bytes()).then_some(at))
        .collect();
    ensure!(!places.is_empty(), "U-Boot does not say its name");
    for at in places {
        own[at..at + OWN.len()].copy_from_slice(OWN.as_bytes());
    }
    let mut layer = Layer::new();
    layer
        .folder("firmware", 0o755)?
        .file(&OWN_PATH[1..], 0o644, &own)?;
    let about = About {
        tag: "own",
        command: &[],
        made_by: "rvm's tests, from Debian's u-boot-qemu",
    };
    write_layout(folder, &about, layer)
}

/// Starts a machine with the EFI disk, and waits for its guest's shell.
fn start(host: &dyn Host, places: &Places, boot: Boot) -> Session {
    let disk = Disk {
        read_only: true,
        ..Disk::new(&places.disk)
    };
    let wish = Spec::builder(boot).memory(MemorySize::from_mib(512)).disk(disk);
    let mut vm = spawn(host, wish);
    vm.expect("GUEST-UP", PATIENCE)
        .expect("the firmware boots the guest");
    until_ready(&mut vm);
    vm
}

/// A firmware finds an EFI system on a disk, and the kernel was started by it.
pub fn boots_an_efi_disk(host: &dyn Host, places: &Places, boot: Boot) {
    let mut vm = start(host, places, boot);
    // The words are put together by the shell, so that their echo is not taken for them.
    vm.send("ls /sys/firmware/efi; echo lis''ted\n")
        .expect("the guest takes input");
    let listed = vm.expect("listed\r\n", PATIENCE).expect("the guest answers");
    assert!(
        listed.contains("systab") || listed.contains("runtime"),
        "{listed}"
    );
    until_ready(&mut vm);
    switch_off(&mut vm);
}

/// EDK2 boots the disk and has written its variables to the machine's own file, which is used again.
pub fn edk2_keeps_its_variables(host: &dyn Host, places: &Places) {
    let boot = places.edk2(host.folder());
    let first = |host: &dyn Host| host.get("vars.fd").expect("the variables are in their file");
    switch_off(&mut start(host, places, boot.clone()));
    let kept = first(host);
    let written = kept.windows(12).any(|bytes| bytes == b"B\0o\0o\0t\0O\0r\0");
    assert!(kept.len() == 32 << 20 && written, "the boot order is a variable");
    switch_off(&mut start(host, places, boot));
}
