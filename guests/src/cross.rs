//! Builds our own programs for riscv64, with whatever Rust toolchain this machine can get.
//!
//! The machine's cargo always drives. Its compiler does where it has the riscv64 standard library or rustup can fetch
//! it; else the distribution's `rustc-web`, which has one, is unpacked into the cache and stands in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cache::Cache;
use crate::command::{output, run};
use crate::debian::{Debian, machine_arch, unpack};
use crate::foreign::Foreign;

/// What we build for.
pub const TARGET: &str = "riscv64gc-unknown-linux-gnu";

/// Where a compiler keeps the libraries of its targets, each in a folder of the target's name.
const LIBRARIES: &str = "usr/lib/rustlib";

/// The workspace's folder.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate lies in the workspace")
}

/// The folder that cargo builds in.
#[must_use]
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}

/// Builds `packages` for riscv64 with `profile`; returns the folder with their static binaries.
pub fn build(cache: &Cache, packages: &[&str], profile: &str) -> Result<PathBuf> {
    build_with(cache, packages, profile, &[])
}

/// The same, with more words for cargo.
pub fn build_with(cache: &Cache, packages: &[&str], profile: &str, more: &[&str]) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--quiet",
        "--locked",
        "--target",
        TARGET,
        "--profile",
        profile,
    ]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    cargo.args(more);
    if let Some(rustc) = compiler(cache)? {
        cargo.env("RUSTC", rustc);
    }
    // Flags of the program that called us, a test run say, are not meant for the guest.
    cargo
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(workspace());
    run(&mut cargo).with_context(|| format!("cannot build {} for riscv64", packages.join(", ")))?;
    Ok(target_dir().join(TARGET).join(profile))
}

/// One of our riscv64 programs: from `RVM_RISCV64_BIN_DIR`, where a test run has put it, or built now.
pub fn program(cache: &Cache, package: &str, binary: &str) -> Result<PathBuf> {
    let given = std::env::var_os("RVM_RISCV64_BIN_DIR").map(|dir| PathBuf::from(dir).join(binary));
    match given.filter(|path| path.exists()) {
        Some(path) => Ok(path),
        None => Ok(build(cache, &[package], "release")?.join(binary)),
    }
}

/// The compiler to set as `RUSTC`; `None` where the machine's own has, or now got, the target.
pub fn compiler(cache: &Cache) -> Result<Option<PathBuf>> {
    if has_target(Path::new("rustc")) {
        return Ok(None);
    }
    if run(Command::new("rustup").args(["target", "add", TARGET])).is_ok() && has_target(Path::new("rustc")) {
        return Ok(None);
    }
    distribution_compiler(cache).map(Some)
}

fn has_target(rustc: &Path) -> bool {
    let Ok(folder) = output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))
    else {
        return false;
    };
    let Ok(found) = fs::read_dir(String::from_utf8_lossy(&folder).trim()) else {
        return false;
    };
    found
        .flatten()
        .any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
}

/// The distribution's compiler, with a folder of its own that has both its standard library and the riscv64 one.
fn distribution_compiler(cache: &Cache) -> Result<PathBuf> {
    let debian = Debian::of(cache);
    let root = debian.extract_root("rustc-root", &machine_arch()?, &["rustc-web"])?;
    let library = debian.download("riscv64", "libstd-rust-web-dev")?;
    let key = format!("rustc 2\n{}\n{}", root.display(), library.display());
    let place = cache.slow_entry("rustc-riscv64", &key, Duration::from_secs(5), |dir| {
        unpack(&library, dir)?;
        link_libraries(&root, &dir.join(LIBRARIES))?;
        let sysroot = "sysroot=$(dirname \"$(readlink -f \"$0\")\")/../usr";
        let foreign = Foreign::of(&root)?;
        foreign.write_script(
            &dir.join("bin/rustc"),
            "usr/bin/rustc",
            sysroot,
            "--sysroot \"$sysroot\"",
        )
    })?;
    let rustc = place.join("bin/rustc");
    ensure!(
        has_target(&rustc),
        "the distribution's rustc and its riscv64 library differ in version; try again later"
    );
    Ok(rustc)
}

/// Links what the compiler of `root` has for other targets, this machine foremost, into `libraries`.
fn link_libraries(root: &Path, libraries: &Path) -> Result<()> {
    let name = root.file_name().context("the unpacked compiler has no name")?;
    let from_here = Path::new("../../../..").join(name).join(LIBRARIES);
    for found in fs::read_dir(root.join(LIBRARIES))? {
        let target = found?.file_name();
        let place = libraries.join(&target);
        if fs::symlink_metadata(&place).is_err() {
            std::os::unix::fs::symlink(from_here.join(&target), place)?;
        }
    }
    Ok(())
}
