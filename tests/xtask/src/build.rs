//! Builds our programs for this machine and for riscv64, where tests and people find them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rvm_guests::cross::{self, workspace};
use rvm_guests::hostile;

use crate::setup::ForBuilding;
use crate::step;

/// Packages with programs for this machine.
const HERE: [&str; 5] = ["rvmm", "rvm-handler", "rvm-server", "rvm", "rvm-trespasser"];

/// Programs for riscv64: packages, profile and names. rvmm is built as it is shipped and measured; what is built together has its
/// dependencies built once.
const RISCV64: [(&[&str], &str, &[&str]); 5] = [
    (&["rvmm"], "dist", &["rvmm"]),
    (
        &["rvm-handler", "rvm-server"],
        "release",
        &["rvm-handler", "rvm-api"],
    ),
    (
        &["rvm-guest-init"],
        "release",
        &["rvm-guest-init", "rvm-guest-probe"],
    ),
    (&["rvm-outer-agent"], "release", &["rvm-lab-agent"]),
    (&["rvm-trespasser"], "release", &["rvm-trespasser"]),
];

/// Where programs lie when they are built.
pub struct Built {
    /// Those for this machine.
    pub here: PathBuf,
    /// Those for riscv64.
    pub riscv64: PathBuf,
}

/// Builds everything.
pub fn all(ready: &ForBuilding) -> Result<Built> {
    Ok(Built {
        here: for_this_machine()?,
        riscv64: for_riscv64(ready)?,
    })
}

/// Builds our programs for this machine.
pub fn for_this_machine() -> Result<PathBuf> {
    let mut cargo = step::cargo();
    cargo.args(["build", "--bins"]);
    for package in HERE {
        cargo.args(["--package", package]);
    }
    step::run(
        "programs for this machine (about 4 minutes the first time)",
        &mut cargo,
    )?;
    Ok(cross::target_dir().join("debug"))
}

fn for_riscv64(ready: &ForBuilding) -> Result<PathBuf> {
    let place = cross::target_dir().join("riscv64-bin");
    fs::create_dir_all(&place)?;
    step::heading("programs for riscv64 (about 4 minutes the first time)");
    for (packages, profile, programs) in RISCV64 {
        let built = cross::build(&ready.cache, packages, profile)?;
        for program in programs {
            put(&built.join(program), &place.join(program))?;
        }
    }
    put(
        &hostile::compile(&ready.cache)?.join(hostile::PROGRAM),
        &place.join(hostile::PROGRAM),
    )?;
    Ok(place)
}

/// Puts `program` at `place` in one go, since a test may be starting the one that is there.
fn put(program: &Path, place: &Path) -> Result<()> {
    let half = place.with_extension("half");
    fs::copy(program, &half).with_context(|| format!("cannot copy {}", program.display()))?;
    fs::rename(&half, place).with_context(|| format!("cannot put {}", place.display()))
}

/// Writes the CRDs anew; a test of rvm-types fails while they are not what the types say.
pub fn crds() -> Result<()> {
    step::run("CRDs", crdgen().arg(workspace().join("deploy/crds")))
}

/// The program that writes what follows from the types.
pub fn crdgen() -> Command {
    let mut generator = step::cargo();
    generator.args([
        "run",
        "--quiet",
        "--package",
        "rvm-types",
        "--bin",
        "crdgen",
        "--",
    ]);
    generator
}
