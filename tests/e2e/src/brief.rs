//! A guest whose whole life is to switch itself off, for tests that need many guests and none of them long.
//!
//! Its kernel is a real one, if a small one: the header that every riscv64 Linux image has, and one SBI call. It comes in an
//! OCI image, as `kernelBoot.container` takes it. Each start of an rvmm for it is recorded on the way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rvm_guests::oci::{About, Layer, write_layout};
use rvm_harness::Manifest;
use serde_json::json;

/// The image's name in manifests.
const IMAGE: &str = "rvm.test/brief:1";

/// Where the kernel is loaded, from the beginning of memory.
const TEXT_OFFSET: u64 = 2 << 20;

/// Instructions behind the header: SBI SRST (0x53525354), function 0, type 0 (shutdown), reason 0; then nothing for ever.
const SWITCH_OFF: [u32; 7] = [
    0x5352_58b7, // lui  a7, 0x53525
    0x3548_8893, // addi a7, a7, 0x354
    0x0000_0813, // li   a6, 0
    0x0000_0513, // li   a0, 0
    0x0000_0593, // li   a1, 0
    0x0000_0073, // ecall
    0x0000_006f, // j    .
];

/// The kernel, as `Documentation/arch/riscv/boot-image-header.rst` lays it out.
#[must_use]
pub fn kernel() -> Vec<u8> {
    let size = 4096_u64;
    let mut image = Vec::new();
    image.extend(0x0400_006f_u32.to_le_bytes()); // j 64
    image.extend(0_u32.to_le_bytes());
    image.extend(TEXT_OFFSET.to_le_bytes());
    image.extend(size.to_le_bytes());
    image.extend(0_u64.to_le_bytes()); // flags: little-endian
    image.extend(2_u32.to_le_bytes()); // version 0.2
    image.extend([0; 12]);
    image.extend(*b"RISCV\0\0\0");
    image.extend(*b"RSC\x05");
    image.extend(0_u32.to_le_bytes());
    image.extend(SWITCH_OFF.iter().flat_map(|word| word.to_le_bytes()));
    image.resize(4096, 0);
    image
}

/// What handlers of such guests are started with, and what they did.
#[derive(Debug)]
pub struct Brief {
    folder: tempfile::TempDir,
}

impl Brief {
    /// Writes the image and the recorder.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(rvmm: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut layer = Layer::new();
        layer.file("kernel", 0o644, &kernel())?;
        let about = About {
            tag: "1",
            command: &[],
            made_by: "rvm-e2e",
        };
        let brief = Self { folder };
        write_layout(&brief.image(), &about, layer)?;
        // A line is written in one go, so two that are started at once do not mix.
        let script = format!(
            "#!/bin/sh\nfor word; do case $word in */spec.json) echo \"$word\" >>'{}' ;; esac; done\nexec '{}' \"$@\"\n",
            brief.record().display(),
            rvmm.display()
        );
        fs::write(brief.rvmm(), script)?;
        fs::set_permissions(brief.rvmm(), fs::Permissions::from_mode(0o755))?;
        Ok(brief)
    }

    /// The arguments of a handler.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mirror = format!("{IMAGE}=oci:{}:1", self.image().display());
        vec![
            "--mirror".to_owned(),
            mirror,
            "--rvmm".to_owned(),
            self.rvmm().display().to_string(),
        ]
    }

    /// Takes the image away: what is not prepared yet cannot be, for as long as that lasts.
    ///
    /// # Errors
    /// The file system's.
    pub fn withdraw(&self) -> Result<()> {
        Ok(fs::rename(self.image(), self.folder.path().join("withdrawn"))?)
    }

    /// Puts the image back.
    ///
    /// # Errors
    /// The file system's.
    pub fn publish(&self) -> Result<()> {
        Ok(fs::rename(self.folder.path().join("withdrawn"), self.image())?)
    }

    /// The UIDs of the machines that were started, one for each start, in order.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn starts(&self) -> Result<Vec<String>> {
        let record = match fs::read_to_string(self.record()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            record => record?,
        };
        let uid = |line: &str| {
            let folder = Path::new(line).parent().and_then(Path::file_name);
            folder.unwrap_or_default().to_string_lossy().into_owned()
        };
        Ok(record.lines().map(uid).collect())
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn record(&self) -> PathBuf {
        self.folder.path().join("starts")
    }

    /// The recorder, which becomes rvmm.
    fn rvmm(&self) -> PathBuf {
        self.folder.path().join("rvmm")
    }
}

/// So many VMIs.
#[must_use]
pub fn manifests(count: usize) -> Vec<Manifest> {
    let manifest = |number| {
        Manifest(json!({
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": { "name": format!("brief-{number}"), "namespace": "default" },
            "spec": { "domain": {
                "devices": {},
                "memory": { "guest": "32Mi" },
                "firmware": { "kernelBoot": { "container": { "image": IMAGE, "kernelPath": "/kernel" } } },
            } },
        }))
    };
    (0..count).map(manifest).collect()
}
