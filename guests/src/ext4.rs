//! File systems for disks, written without being root: `mke2fs` of the Debian release fills one from an archive, whose
//! owners and modes it keeps.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::cache::Cache;
use crate::command::run;
use crate::debian::{Debian, machine_arch};
use crate::foreign::Foreign;

/// The tool, and the library by which it reads archives.
const PACKAGES: [&str; 2] = ["e2fsprogs", "libarchive13t64"];

/// What a file system is called, and what would else be made up at random.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Its label.
    pub label: &'a str,
    /// Its UUID, which its folders' hashes begin with too.
    pub uuid: &'a str,
    /// When it was made, in seconds since 1970.
    pub made: u64,
}

/// Fills the file `image` with a file system of `size` bytes that holds the archive's files. The same archive gives the same
/// bytes.
pub fn write(cache: &Cache, archive: &Path, image: &Path, size: u64, identity: &Identity<'_>) -> Result<()> {
    let mut mke2fs = Command::new(program(cache)?);
    mke2fs.args(["-q", "-F", "-t", "ext4", "-m", "1", "-b", "4096"]);
    mke2fs.args(["-L", identity.label, "-U", identity.uuid]);
    mke2fs.args([
        "-E",
        &format!("hash_seed={},lazy_itable_init=1,root_owner=0:0", identity.uuid),
    ]);
    mke2fs
        .arg("-d")
        .arg(archive)
        .arg(image)
        .arg((size / 4096).to_string());
    mke2fs.env("SOURCE_DATE_EPOCH", identity.made.to_string());
    mke2fs.env("E2FSPROGS_FAKE_TIME", identity.made.to_string());
    // The machine's own configuration has no say.
    run(mke2fs.env("MKE2FS_CONFIG", "/dev/null"))
}

fn program(cache: &Cache) -> Result<PathBuf> {
    let unpacked = Debian::of(cache).extract_root("e2fsprogs-root", &machine_arch()?, &PACKAGES)?;
    let key = format!("e2fsprogs 1\n{}", unpacked.display());
    let root = cache.slow_entry("e2fsprogs", &key, Duration::from_secs(1), |dir| {
        Foreign::of(&unpacked)?.write_script(&dir.join("bin/mke2fs"), "usr/sbin/mke2fs", "", "")
    })?;
    Ok(root.join("bin/mke2fs"))
}
