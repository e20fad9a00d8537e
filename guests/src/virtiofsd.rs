//! virtiofsd of the Debian release: the process that serves a folder of the host to a guest.
//!
//! Like QEMU it is unpacked beside the machine's own packages and started with the libraries that came with it; for the lab
//! its files are put where a host of the same release has them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::debian::{Debian, machine_arch};
use crate::foreign::Foreign;

const PROGRAM: &str = "usr/libexec/virtiofsd";

/// The libraries that a host of the release need not have.
const LIBRARIES: [&str; 3] = ["libseccomp.so.2", "libcap-ng.so.0", "libgcc_s.so.1"];

/// Where they lie on a riscv64 host.
const LIBRARY_FOLDER: &str = "usr/lib/riscv64-linux-gnu";

/// A file for a riscv64 host: its path there, and where it is here.
pub type Placed = (String, PathBuf);

/// One that runs on this machine.
pub fn here(cache: &Cache) -> Result<PathBuf> {
    let unpacked = root(cache, &machine_arch()?)?;
    let key = format!("virtiofsd 1\n{}", unpacked.display());
    let made = cache.slow_entry("virtiofsd", &key, Duration::from_secs(1), |dir| {
        Foreign::of(&unpacked)?.write_script(&dir.join("bin/virtiofsd"), PROGRAM, "", "")
    })?;
    Ok(made.join("bin/virtiofsd"))
}

/// The files by which a riscv64 host of the release has `/usr/bin/virtiofsd`.
pub fn for_riscv64(cache: &Cache) -> Result<Vec<Placed>> {
    let unpacked = root(cache, "riscv64")?;
    let mut files = vec![("usr/bin/virtiofsd".to_owned(), unpacked.join(PROGRAM))];
    for library in LIBRARIES {
        let path = format!("{LIBRARY_FOLDER}/{library}");
        let file = real(&unpacked.join(&path))?;
        files.push((path, file));
    }
    Ok(files)
}

/// A library's name is a link to the file of its version.
fn real(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("virtiofsd came without {}", path.display()))
}

fn root(cache: &Cache, arch: &str) -> Result<PathBuf> {
    Debian::of(cache).extract_root(&format!("virtiofsd-root-{arch}"), arch, &["virtiofsd"])
}
