//! A registry of images for tests: the Debian release's `docker-registry`, which is the reference implementation of the
//! OCI distribution protocol.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::cache::Cache;
use crate::debian::{Debian, machine_arch};
use crate::foreign::Foreign;

/// The program, started as `docker-registry serve CONFIG`.
pub fn server(cache: &Cache) -> Result<PathBuf> {
    let packages = ["docker-registry", "libc6"];
    let unpacked = Debian::of(cache).extract_root("docker-registry-root", &machine_arch()?, &packages)?;
    let key = format!("docker-registry 1\n{}", unpacked.display());
    let made = cache.slow_entry("docker-registry", &key, Duration::from_secs(1), |dir| {
        Foreign::of(&unpacked)?.write_script(
            &dir.join("bin/docker-registry"),
            "usr/bin/docker-registry",
            "",
            "",
        )
    })?;
    Ok(made.join("bin/docker-registry"))
}
