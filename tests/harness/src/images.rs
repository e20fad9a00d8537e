//! The images of our programs for a node's registry: laid out as those that are shipped, of the programs that cargo has built
//! for the tests, without what only debuggers read.
//!
//! These bring no C library along, so Debian's lies below them in the image; a machine whose own is newer than the release's
//! cannot run them there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rvm_guests::Cache;
use rvm_guests::cache::{sha256, sha256_of};
use rvm_guests::command::run;
use rvm_guests::cross::target_dir;
use rvm_guests::debian::machine_arch;
use rvm_guests::product::{self, Platform};

use crate::node::{Node, REGISTRY};
use crate::tools::Tools;

/// Their tag.
pub const TAG: &str = "test";

/// Where they are beside what cargo has built. Each kind has one place, so that they do not pile up.
const PLACE: &str = "test-images";

/// Which programs there are, and what cargo calls this machine.
const PROGRAMS: [&str; 3] = ["rvm-api", "rvm-handler", "rvmm"];

/// Pushes these images ([`product::NAMES`]) to a node's registry; returns the prefix of their names there, to which
/// `/NAME:` and [`TAG`] belong.
///
/// # Errors
/// A program was not built, or the registry's.
pub fn push(tools: &Tools, node: &Node, names: &[&str]) -> Result<String> {
    node.push_named(&layout(tools, names)?)?;
    Ok(REGISTRY.to_owned())
}

/// The layout with these images, which is made where it is not there for the programs of now.
fn layout(tools: &Tools, names: &[&str]) -> Result<PathBuf> {
    let place = target_dir().join(PLACE).join(names.join("+"));
    fs::create_dir_all(&place)?;
    let lock = File::create(place.join("lock"))?;
    lock.lock().context("cannot lock the images of tests")?;
    let mut key = product::RECIPE.to_owned();
    for program in PROGRAMS {
        key.push_str(&sha256_of(&tools.own(program)?)?);
    }
    let (layout, noted) = (place.join("layout"), place.join("key"));
    let key = sha256(key.as_bytes());
    if fs::read_to_string(&noted).is_ok_and(|noted| noted == key) {
        return Ok(layout);
    }
    for stale in [&layout, &place.join("programs")] {
        if stale.exists() {
            fs::remove_dir_all(stale)?;
        }
        fs::create_dir_all(stale)?;
    }
    let programs = place.join("programs");
    let [api, handler, rvmm] = PROGRAMS.map(|program| stripped(tools, program, &programs));
    let arch = machine_arch()?;
    let platform = Platform {
        target: target(&arch),
        arch,
        api: api?,
        handler: handler?,
        rvmm: rvmm?,
        is_static: false,
    };
    product::write(&Cache::open()?, &layout, TAG, names, &[platform])?;
    fs::write(noted, key)?;
    Ok(layout)
}

fn target(arch: &str) -> String {
    let cpu = match arch {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "riscv64" => "riscv64gc",
        other => other,
    };
    format!("{cpu}-unknown-linux-gnu")
}

fn stripped(tools: &Tools, program: &str, into: &Path) -> Result<PathBuf> {
    let place = into.join(program);
    run(Command::new("strip")
        .arg("-o")
        .arg(&place)
        .arg(tools.own(program)?))?;
    Ok(place)
}
