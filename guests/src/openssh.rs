//! SSH's client and the maker of its keys, of the Debian release: by which tests log in to guests.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::cache::Cache;
use crate::debian::{Debian, machine_arch};
use crate::foreign::Foreign;

const PROGRAMS: [&str; 2] = ["ssh", "ssh-keygen"];

/// The folder with `ssh` and `ssh-keygen`.
pub fn bin_dir(cache: &Cache) -> Result<PathBuf> {
    let unpacked = Debian::of(cache).extract_root("openssh-root", &machine_arch()?, &["openssh-client"])?;
    let key = format!("openssh 1\n{}", unpacked.display());
    let made = cache.slow_entry("openssh", &key, Duration::from_secs(1), |dir| {
        let openssh = Foreign::of(&unpacked)?;
        PROGRAMS.iter().try_for_each(|name| {
            let script = dir.join("bin").join(name);
            openssh.write_script(&script, &format!("usr/bin/{name}"), "", "")
        })
    })?;
    Ok(made.join("bin"))
}
