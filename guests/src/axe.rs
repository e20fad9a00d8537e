//! axe-core, the script that finds what keeps people from using a page: out of a package that carries it along, pinned by its hash.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cache::Cache;
use crate::pip;

/// axe-core 4.12.1; of the package itself nothing is used.
const PACKAGE: &str = "axe-playwright-python==0.1.8 \
                       --hash=sha256:fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8\n";
/// Where it is in there.
const SCRIPT: &str = "axe_playwright_python/axe.min.js";

/// The script.
///
/// # Errors
/// The package cannot be had.
pub fn script(cache: &Cache) -> Result<PathBuf> {
    let place = cache.slow_entry("axe", &format!("axe 1\n{PACKAGE}"), Duration::from_secs(3), fetch)?;
    Ok(place.join(SCRIPT))
}

fn fetch(dir: &Path) -> Result<()> {
    pip::unpack(PACKAGE, dir)?;
    ensure!(dir.join(SCRIPT).is_file(), "the package holds no {SCRIPT}");
    Ok(())
}
