//! `fence_kubevirt` of the Debian release, the fence agent by which high-availability clusters switch KubeVirt's machines: a client
//! that nobody here wrote, on Kubernetes' and OpenShift's client libraries for Python.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::cache::Cache;
use crate::debian::{Debian, machine_arch};
use crate::foreign::Foreign;

/// It brings its libraries along, and an interpreter of its own.
const PACKAGE: &str = "fence-agents-kubevirt";

/// Has the interpreter find what belongs to it, and write nothing beside it.
const BEFORE: &str = "export PYTHONHOME=$root/usr PYTHONDONTWRITEBYTECODE=1\n\
                      export PYTHONPATH=$root/usr/lib/python3/dist-packages:$root/usr/share/fence";

/// The program.
pub fn agent(cache: &Cache) -> Result<PathBuf> {
    let unpacked = Debian::of(cache).extract_root("fence-root", &machine_arch()?, &[PACKAGE])?;
    let key = format!("fence 1\n{}\n{BEFORE}", unpacked.display());
    let made = cache.slow_entry("fence", &key, Duration::from_secs(1), |dir| {
        Foreign::of(&unpacked)?.write_script(
            &dir.join("bin/fence_kubevirt"),
            "usr/bin/python3",
            BEFORE,
            "\"$root/usr/sbin/fence_kubevirt\"",
        )
    })?;
    Ok(made.join("bin/fence_kubevirt"))
}
