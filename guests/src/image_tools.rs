//! The usual tools for images, of the Debian release: what the bench holds our own way beside.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::cache::Cache;
use crate::debian::{Debian, machine_arch};
use crate::foreign::Foreign;

/// Copies images between registries and layouts.
const SKOPEO: &str = "usr/bin/skopeo";

/// Unpacks layouts.
const UMOCI: &str = "usr/bin/umoci";

/// Makes file systems of folders.
const MKE2FS: &str = "usr/sbin/mke2fs";

/// Where they lie.
#[derive(Debug, Clone)]
pub struct ImageTools {
    /// skopeo.
    pub skopeo: PathBuf,
    /// umoci.
    pub umoci: PathBuf,
    /// mke2fs.
    pub mke2fs: PathBuf,
}

/// Has them ready for this machine.
pub fn open(cache: &Cache) -> Result<ImageTools> {
    let packages = ["skopeo", "umoci", "e2fsprogs", "libc6"];
    let unpacked = Debian::of(cache).extract_root("image-tools-root", &machine_arch()?, &packages)?;
    let key = format!("image-tools 1\n{}", unpacked.display());
    let made = cache.slow_entry("image-tools", &key, Duration::from_secs(1), |dir| {
        let foreign = Foreign::of(&unpacked)?;
        for program in [SKOPEO, UMOCI, MKE2FS] {
            let name = program.rsplit('/').next().unwrap_or(program);
            foreign.write_script(&dir.join("bin").join(name), program, "", "")?;
        }
        Ok(())
    })?;
    let bin = made.join("bin");
    Ok(ImageTools {
        skopeo: bin.join("skopeo"),
        umoci: bin.join("umoci"),
        mke2fs: bin.join("mke2fs"),
    })
}
