//! The images that can be pushed to a registry, each an image layout: what a manifest's `image` names.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cache::{Cache, sha256_of};
use crate::demo;
use crate::distribution;
use crate::efi;
use crate::kernel::Kernel;
use crate::oci::{About, Layer, write_layout};
use crate::tiny;

/// An image and its name in a registry.
#[derive(Debug)]
pub struct Named {
    /// Repository and tag.
    pub name: &'static str,
    /// Where it is here.
    pub layout: PathBuf,
}

/// All of them.
pub fn all(cache: &Cache) -> Result<Vec<Named>> {
    Ok(vec![
        Named {
            name: "library/alpine:3.23",
            layout: demo::build(cache)?.image(),
        },
        Named {
            name: "rvm/kernel-boot-demo:1",
            layout: kernel_boot(cache)?,
        },
        Named {
            name: "rvm/efi-demo:1",
            layout: efi::image(cache)?,
        },
        Named {
            name: "rvm/debian-efi:13",
            layout: distribution::image(cache)?,
        },
    ])
}

/// A kernel and an initial RAM disk in an image: what a VMI's `kernelBoot` names, at the paths that KubeVirt's demo has.
pub fn kernel_boot(cache: &Cache) -> Result<PathBuf> {
    let (kernel, tiny) = (Kernel::debian(cache)?, tiny::build(cache)?);
    let key = format!("kernel-boot 1\n{}\n{}", kernel.version, sha256_of(&tiny)?);
    cache.entry("kernel-boot", &key, |dir| {
        let read = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let mut layer = Layer::new();
        layer
            .folder("boot", 0o755)?
            .file("boot/vmlinuz-virt", 0o644, &read(&kernel.image)?)?
            .file("boot/initramfs-virt", 0o644, &read(&tiny)?)?;
        let about = About {
            tag: "1",
            command: &[],
            made_by: "rvm-guests, from Debian's kernel and busybox-static",
        };
        write_layout(dir, &about, layer)
    })
}
