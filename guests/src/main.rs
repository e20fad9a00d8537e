//! `rvm-guests WHAT` makes one thing in the cache and prints where it lies, for scripts and for people.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use rvm_guests::{Cache, Kernel, Toolbox, bench, demo, efi, hostile, kube, registry, tiny, virtiofsd};

const USAGE: &str =
    "usage: rvm-guests kernel|tiny|bench|demo|hostile|efi|firmware|qemu|opensbi|kube|registry|virtiofsd";

fn main() -> ExitCode {
    let what = std::env::args().nth(1).unwrap_or_default();
    match make(&what) {
        Ok(place) => {
            println!("{}", place.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rvm-guests: {error:#}");
            ExitCode::FAILURE
        }
    }
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
        "firmware" => Ok(Toolbox::open(&cache)?.firmware_dir()),
        "kube" => kube::assets(&cache),
        "registry" => registry::server(&cache),
        "qemu" => Ok(Toolbox::open(&cache)?.qemu()),
        "virtiofsd" => virtiofsd::here(&cache),
        "opensbi" => Ok(Toolbox::open(&cache)?.opensbi()),
        _ => bail!(USAGE),
    }
}
