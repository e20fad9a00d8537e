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
use rvm_guests::cross::{self, target_dir};
use rvm_guests::debian::machine_arch;
use rvm_guests::product::{self, Platform};

use crate::node::{Node, REGISTRY};
use crate::tools::Tools;

/// Their tag.
pub const TAG: &str = "test";

/// Where they are beside what cargo has built. Each kind has one place, so that they do not pile up.
const PLACE: &str = "test-images";

const API: &str = "rvm-api";
const HANDLER: &str = "rvm-handler";
const RVMM: &str = "rvmm";

/// Which programs there are.
const PROGRAMS: [&str; 3] = [API, HANDLER, RVMM];

/// Pushes these images ([`product::NAMES`]) to a node's registry; returns the prefix of their names there, to which
/// `/NAME:` and [`TAG`] belong.
///
/// # Errors
/// A program was not built, or the registry's.
pub fn push(tools: &Tools, node: &Node, names: &[&str]) -> Result<String> {
    node.push_named(&layout(tools, names, None)?)?;
    Ok(REGISTRY.to_owned())
}

/// The same for nodes of riscv64 as well. Those programs are the ones that the lab's tests run.
///
/// # Errors
/// As for [`push`].
pub fn push_for_both(tools: &Tools, node: &Node, names: &[&str]) -> Result<String> {
    node.push_named(&layout(tools, names, Some(riscv64(names)?))?)?;
    Ok(REGISTRY.to_owned())
}

/// The programs of a node of riscv64. [`API`], which may be anywhere in a cluster, is one of them where its image is wanted there.
fn riscv64(names: &[&str]) -> Result<Platform> {
    let cache = Cache::open()?;
    let handler = cross::program(&cache, HANDLER, HANDLER)?;
    Ok(Platform {
        arch: "riscv64".to_owned(),
        target: cross::TARGET.to_owned(),
        api: match names.contains(&API) {
            true => cross::program(&cache, "rvm-server", API)?,
            false => handler.with_file_name(API),
        },
        rvmm: cross::program(&cache, RVMM, RVMM)?,
        handler,
        is_static: true,
    })
}

/// The same under another tag.
///
/// # Errors
/// As for [`push`].
pub fn push_as(tools: &Tools, node: &Node, names: &[&str], tag: &str) -> Result<()> {
    node.push_named_as(&layout(tools, names, None)?, tag)
}

/// The layout with these images, which is made where it is not there for the programs of now.
fn layout(tools: &Tools, names: &[&str], other: Option<Platform>) -> Result<PathBuf> {
    let mut words = names.to_vec();
    words.extend(other.as_ref().map(|platform| platform.arch.as_str()));
    let place = target_dir().join(PLACE).join(words.join("+"));
    fs::create_dir_all(&place)?;
    let lock = File::create(place.join("lock"))?;
    lock.lock().context("cannot lock the images of tests")?;
    let mut key = product::RECIPE.to_owned();
    for program in PROGRAMS {
        key.push_str(&sha256_of(&tools.own(program)?)?);
    }
    for program in other
        .iter()
        .flat_map(|platform| [&platform.api, &platform.handler, &platform.rvmm])
    {
        // Of one that is not there no image is made.
        if program.exists() {
            key.push_str(&sha256_of(program)?);
        }
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
    let mut platforms = vec![here(tools, &place.join("programs"))?];
    platforms.extend(other);
    product::write(&Cache::open()?, &layout, TAG, names, &platforms)?;
    fs::write(noted, key)?;
    Ok(layout)
}

/// What cargo has built for this machine.
fn here(tools: &Tools, programs: &Path) -> Result<Platform> {
    let [api, handler, rvmm] = PROGRAMS.map(|program| stripped(tools, program, programs));
    let arch = machine_arch()?;
    Ok(Platform {
        target: target(&arch),
        arch,
        api: api?,
        handler: handler?,
        rvmm: rvmm?,
        is_static: false,
    })
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
