//! The guest that is measured: nothing but busybox and a shell script, so that what is counted is the kernel and the
//! machine under it. `rvm.run=idle` on its command line keeps it from powering off.

use std::path::PathBuf;

use anyhow::Result;

use crate::busybox::Busybox;
use crate::cache::{Cache, sha256_of};
use crate::tiny::{base, write_gzipped};

const INIT: &str = r#"#!/bin/sh
/bin/busybox mount -t proc proc /proc
echo GUEST-UP
read -r line </proc/cmdline
case $line in *rvm.run=idle*) while :; do /bin/busybox sleep 3600; done ;; esac
/bin/busybox poweroff -f
"#;

/// The measured guest's initramfs, gzip'ed.
pub fn build(cache: &Cache) -> Result<PathBuf> {
    let busybox = Busybox::debian(cache)?;
    let key = format!("bench 1\n{}\n{INIT}", sha256_of(&busybox.program)?);
    let place = cache.entry("bench", &key, |dir| {
        write_gzipped(&base(&busybox, INIT), &dir.join("bench.cpio.gz"))
    })?;
    Ok(place.join("bench.cpio.gz"))
}
