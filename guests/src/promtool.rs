//! `promtool` of the Debian release, which checks and tests Prometheus' rules. Its server is not started.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::cache::Cache;
use crate::debian::{Debian, machine_arch};
use crate::foreign::Foreign;

/// The program.
///
/// # Errors
/// The package cannot be had.
pub fn program(cache: &Cache) -> Result<PathBuf> {
    let packages = ["prometheus", "libc6"];
    let unpacked = Debian::of(cache).extract_root("prometheus-root", &machine_arch()?, &packages)?;
    let key = format!("promtool 1\n{}", unpacked.display());
    let made = cache.slow_entry("promtool", &key, Duration::from_secs(1), |dir| {
        Foreign::of(&unpacked)?.write_script(&dir.join("bin/promtool"), "usr/bin/promtool", "", "")
    })?;
    Ok(made.join("bin/promtool"))
}
