//! The guest that misuses its devices (`hostile/`), as a kernel to boot.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cache::{Cache, sha256_of};
use crate::command::run;
use crate::cross;

const PACKAGE: &str = "rvm-hostile";
/// What its program is called.
pub const PROGRAM: &str = "rvm-hostile-guest";

/// Builds its program for riscv64: an ELF file that stands for itself alone. Returns the folder that it is in.
pub fn compile(cache: &Cache) -> Result<PathBuf> {
    cross::build_with(cache, &[PACKAGE], "release", &["--features", "payload"])
}

/// The guest as a raw Image: out of `RVM_RISCV64_BIN_DIR`, where a test run has put its program, or built now.
pub fn build(cache: &Cache) -> Result<PathBuf> {
    let given = std::env::var_os("RVM_RISCV64_BIN_DIR").map(|dir| Path::new(&dir).join(PROGRAM));
    let program = match given.filter(|path| path.exists()) {
        Some(path) => path,
        None => compile(cache)?.join(PROGRAM),
    };
    let key = format!("hostile 1\n{}", sha256_of(&program)?);
    let place = cache.entry("hostile", &key, |dir| {
        let mut objcopy = Command::new("riscv64-linux-gnu-objcopy");
        run(objcopy
            .args(["-O", "binary"])
            .arg(&program)
            .arg(dir.join("Image")))
    })?;
    Ok(place.join("Image"))
}
