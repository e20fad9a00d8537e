//! The user space of every guest built here: Debian's static busybox.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::cache::Cache;
use crate::debian::Debian;

/// How the list of names begins inside the program.
const FIRST_NAMES: &[u8] = b"[\0[[\0";

/// More names than any busybox has.
const MAX_APPLETS: usize = 1000;

/// A static busybox and the names it answers to.
#[derive(Debug, Clone)]
pub struct Busybox {
    /// The program.
    pub program: PathBuf,
    /// The names of its applets, without its own.
    pub applets: Vec<String>,
}

impl Busybox {
    /// Debian's `busybox-static`.
    pub fn debian(cache: &Cache) -> Result<Self> {
        Self::debian_for(cache, "riscv64")
    }

    /// The same for another architecture, as Debian names it.
    pub fn debian_for(cache: &Cache, arch: &str) -> Result<Self> {
        let program = Debian::of(cache)
            .extract_one(arch, "busybox-static")?
            .join("usr/bin/busybox");
        let bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
        let mut applets = applets(&bytes);
        applets.retain(|name| name != "busybox");
        ensure!(
            !applets.is_empty(),
            "{} does not list its applets",
            program.display()
        );
        Ok(Self { program, applets })
    }
}

/// Reads the sorted, NUL-separated list of names that busybox looks its applets up in. Asking the program itself
/// would take an emulator.
fn applets(program: &[u8]) -> Vec<String> {
    let Some(at) = program
        .windows(FIRST_NAMES.len())
        .position(|window| window == FIRST_NAMES)
    else {
        return Vec::new();
    };
    let mut names: Vec<String> = Vec::new();
    for name in program[at..].split(|byte| *byte == 0).take(MAX_APPLETS) {
        let Ok(name) = std::str::from_utf8(name) else {
            break;
        };
        if name.is_empty() || names.last().is_some_and(|last| last.as_str() >= name) {
            break;
        }
        names.push(name.to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applets_are_read_from_the_sorted_list_inside_the_program() {
        let program = b"\x7fELF junk\0[\0[[\0ash\0sh\0wget\0\0more\0text\0";
        assert_eq!(applets(program), ["[", "[[", "ash", "sh", "wget"]);
        assert_eq!(applets(b"\0[\0[[\0ash\0Not sorted\0"), ["[", "[[", "ash"]);
        assert!(applets(b"no list").is_empty());
    }
}
