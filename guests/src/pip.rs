//! What comes out of Python packages: unpacked into a folder, each pinned by its hash, nothing built and nothing else brought along.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::command::run;

/// Where the list lies that pip reads.
const LIST: &str = "packages.txt";

/// Unpacks the packages of `list`, as pip's requirement files have them, into `dir`.
///
/// # Errors
/// A package cannot be had, or is not the one that its hash names.
pub fn unpack(list: &str, dir: &Path) -> Result<()> {
    let path = dir.join(LIST);
    fs::write(&path, list)?;
    let mut pip = Command::new("pip3");
    pip.args([
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--root-user-action=ignore",
        "--no-warn-script-location",
    ]);
    run(pip.arg("--target").arg(dir).arg("-r").arg(path))
}
