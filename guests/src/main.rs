//! `rvm-guests WHAT` makes one thing in the cache and prints where it lies, for scripts and for people.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use rvm_guests::{
    Cache, Kernel, Toolbox, bench, demo, distribution, efi, fence, hostile, kube, kube_node, registry, tiny,
    virtiofsd,
};

const USAGE: &str = "usage: rvm-guests kernel|tiny|bench|demo|hostile|efi|efi-image|debian-efi|debian-efi-image|firmware|qemu|opensbi|kube|kube-node|kube-node-riscv64|registry|virtiofsd|fence|push REGISTRY|push-layout REGISTRY FOLDER";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let what = words.next().unwrap_or_default();
    let done = match (what.as_str(), words.next()) {
        ("push", Some(registry)) => push(&registry),
        ("push-layout", Some(registry)) => push_layout(words.next().as_deref(), &registry),
        ("push", None) => Err(anyhow!("usage: rvm-guests push REGISTRY[/PREFIX]")),
        (what, _) => make(what).map(|place| vec![place.display().to_string()]),
    };
    match done {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rvm-guests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Pushes the images for guests, and names what they are called there.
#[cfg(feature = "push")]
fn push(registry: &str) -> Result<Vec<String>> {
    use rvm_guests::{images, push};
    let login = std::env::var(push::LOGIN).ok().filter(|login| !login.is_empty());
    let images = images::all(&Cache::open()?)?;
    let pushed = images.into_iter().map(|image| {
        let reference = format!("{}/{}", registry.trim_end_matches('/'), image.name);
        push::push(&image.layout, &reference, login.as_deref())?;
        Ok(reference)
    });
    pushed.collect()
}

/// Pushes what a layout names, and names what it is called there.
#[cfg(feature = "push")]
fn push_layout(folder: Option<&str>, registry: &str) -> Result<Vec<String>> {
    use rvm_guests::push;
    let folder = folder.ok_or_else(|| anyhow!("usage: rvm-guests push-layout REGISTRY[/PREFIX] FOLDER"))?;
    let login = std::env::var(push::LOGIN).ok().filter(|login| !login.is_empty());
    push::push_named(std::path::Path::new(folder), registry, login.as_deref(), None)
}

/// Says how to get what was left out of this program.
#[cfg(not(feature = "push"))]
fn push_layout(_folder: Option<&str>, registry: &str) -> Result<Vec<String>> {
    push(registry)
}

/// Says how to get what was left out of this program.
#[cfg(not(feature = "push"))]
fn push(_registry: &str) -> Result<Vec<String>> {
    bail!("this program cannot push; run it with: cargo run -p rvm-guests --features push -- push REGISTRY")
}

fn make(what: &str) -> Result<PathBuf> {
    let cache = Cache::open()?;
    match what {
        "kernel" => Ok(Kernel::debian(&cache)?.image),
        "tiny" => tiny::build(&cache),
        "bench" => bench::build(&cache),
        "demo" => Ok(demo::build(&cache)?.folder),
        "hostile" => hostile::build(&cache),
        "efi" => efi::build(&cache),
        "efi-image" => efi::image(&cache),
        "debian-efi" => Ok(distribution::build(&cache)?.raw),
        "debian-efi-image" => distribution::image(&cache),
        "firmware" => Ok(Toolbox::open(&cache)?.firmware_dir()),
        "kube" => kube::assets(&cache),
        "kube-node" => Ok(kube_node::here(&cache)?.root),
        "kube-node-riscv64" => Ok(kube_node::machine(&cache)?.disk),
        "registry" => registry::server(&cache),
        "qemu" => Ok(Toolbox::open(&cache)?.qemu()),
        "virtiofsd" => virtiofsd::here(&cache),
        "fence" => fence::agent(&cache),
        "opensbi" => Ok(Toolbox::open(&cache)?.opensbi()),
        _ => bail!(USAGE),
    }
}
