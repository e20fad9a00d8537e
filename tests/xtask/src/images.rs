//! The images that a cluster installs, for each architecture of a node: `target/images`, an image
//! layout, which is pushed to a registry where one is named.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::Args;
use rvm_guests::Cache;
use rvm_guests::command::output;
use rvm_guests::cross::{self, target_dir};
use rvm_guests::product::{self, Platform, Written};

use crate::setup::{self, ForBuilding};
use crate::{packages, step};

/// What may be said of the images.
#[derive(Args)]
pub struct Wish {
    /// Only these architectures, such as amd64 [default: riscv64, amd64 and arm64]
    #[arg(long)]
    arch: Vec<String>,
    /// Push them to this registry, as REGISTRY/NAME:TAG; a login stands in RVM_REGISTRY_LOGIN as NAME:PASSWORD
    #[arg(long, value_name = "REGISTRY[/PREFIX]")]
    push: Option<String>,
    /// Their tag
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
}

/// An architecture: as Go and Debian name it, as cargo does, and what compiles C for it.
struct Architecture {
    name: &'static str,
    target: &'static str,
    compiler: &'static str,
}

const ARCHITECTURES: [Architecture; 3] = [
    Architecture {
        name: "riscv64",
        target: cross::TARGET,
        compiler: "riscv64-linux-gnu-gcc",
    },
    Architecture {
        name: "amd64",
        target: "x86_64-unknown-linux-gnu",
        compiler: "x86_64-linux-gnu-gcc",
    },
    Architecture {
        name: "arm64",
        target: "aarch64-unknown-linux-gnu",
        compiler: "aarch64-linux-gnu-gcc",
    },
];

/// Our packages by profile; what is built together has its dependencies built once. rvmm is built as it is measured.
const NODE_SIDE: (&str, &[&str]) = ("release", &["rvm-server", "rvm-handler"]);
const MACHINE_SIDE: (&str, &[&str]) = ("dist", &["rvmm"]);

/// Builds, writes and pushes.
pub fn run(wish: &Wish) -> Result<ExitCode> {
    let ready = setup::for_building()?;
    let wanted = wanted(&wish.arch)?;
    // What is missing is said before the first long build, not after it.
    for architecture in &wanted {
        packages::ensure_for_arch(architecture.name)
            .with_context(|| format!("{} cannot be built for (ARCH=… leaves it out)", architecture.name))?;
    }
    let mut platforms = Vec::new();
    for architecture in wanted {
        platforms.push(build(&ready, architecture)?);
    }
    let place = target_dir().join("images");
    let half = target_dir().join("images.half");
    let _ = fs::remove_dir_all(&half);
    fs::create_dir_all(&half)?;
    step::heading("images");
    let written = product::write(&ready.cache, &half, &wish.tag, &product::NAMES, &platforms)?;
    let _ = fs::remove_dir_all(&place);
    fs::rename(&half, &place).with_context(|| format!("cannot put {}", place.display()))?;
    print(&written);
    keep_small(&written)?;
    println!("{}", place.display());
    if let Some(registry) = &wish.push {
        let mut push = step::cargo();
        push.args([
            "run",
            "--quiet",
            "--package",
            "rvm-guests",
            "--features",
            "push",
            "--",
        ]);
        step::run("push", push.args(["push-layout", registry]).arg(&place))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Those that were asked for, else all.
fn wanted(names: &[String]) -> Result<Vec<&'static Architecture>> {
    if let Some(unknown) = names
        .iter()
        .find(|name| !ARCHITECTURES.iter().any(|known| known.name == **name))
    {
        bail!("no images are made for {unknown}; known: riscv64, amd64, arm64");
    }
    let is_wanted = |known: &&Architecture| names.is_empty() || names.iter().any(|name| name == known.name);
    Ok(ARCHITECTURES.iter().filter(is_wanted).collect())
}

fn build(ready: &ForBuilding, architecture: &Architecture) -> Result<Platform> {
    step::heading(&format!(
        "programs for {} (about 8 minutes on two cores)",
        architecture.name
    ));
    let programs = build_static(&ready.cache, architecture, NODE_SIDE)?;
    let machine = build_static(&ready.cache, architecture, MACHINE_SIDE)?;
    Ok(Platform {
        arch: architecture.name.to_owned(),
        target: architecture.target.to_owned(),
        api: programs.join("rvm-api"),
        handler: programs.join("rvm-handler"),
        rvmm: machine.join("rvmm"),
        is_static: true,
    })
}

/// Builds packages, and returns the folder with their programs. The same sources give the same bytes wherever they lie.
fn build_static(
    cache: &Cache,
    architecture: &Architecture,
    (profile, packages): (&str, &[&str]),
) -> Result<PathBuf> {
    let target = architecture.target;
    let mut cargo = step::cargo();
    if target == cross::TARGET {
        if let Some(rustc) = cross::compiler(cache)? {
            cargo.env("RUSTC", rustc);
        }
    } else if !has_library(target) {
        let mut rustup = Command::new("rustup");
        step::run("Rust's library", rustup.args(["target", "add", target]))
            .with_context(|| format!("{} needs Rust's library for {target}", architecture.name))?;
    }
    let name = target.replace('-', "_");
    let linker = format!("CARGO_TARGET_{}_LINKER", name.to_uppercase());
    // Of its own: what is built with other flags there would be built anew each time.
    let place = target_dir().join("images-build");
    cargo
        .args(["build", "--locked", "--bins", "--target", target])
        .args(["--profile", profile, "--target-dir"])
        .arg(&place)
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(&place)?)
        .env(format!("CFLAGS_{name}"), c_flags()?)
        .env(linker, architecture.compiler);
    // It takes minutes: who looks on sees how far it is. A log has no use for hundreds of names.
    if !std::io::stderr().is_terminal() {
        cargo.arg("--quiet");
    }
    let what = format!("{} for {}", packages.join(", "), architecture.name);
    step::run(&what, &mut cargo)?;
    Ok(place.join(target).join(profile))
}

/// Static programs, in which no path of this machine is: each is told by another name, of which the last that fits counts.
fn rust_flags(place: &Path) -> Result<String> {
    let named = [
        (cargo_home()?, "/cargo"),
        (cross::workspace().to_owned(), "/rvm"),
        (place.to_owned(), "/target"),
    ];
    let remapped = named
        .iter()
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    let flags = ["-C".to_owned(), "target-feature=+crt-static".to_owned()];
    Ok(flags
        .into_iter()
        .chain(remapped)
        .collect::<Vec<_>>()
        .join("\u{1f}"))
}

/// The same of what is compiled from C, all of which is other people's.
fn c_flags() -> Result<String> {
    Ok(format!("-ffile-prefix-map={}=/cargo", cargo_home()?.display()))
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("CARGO_HOME").filter(|given| !given.is_empty()) {
        return Ok(given.into());
    }
    let home = std::env::home_dir().context("there is no home folder, and CARGO_HOME is not set")?;
    Ok(home.join(".cargo"))
}

fn has_library(target: &str) -> bool {
    let asked = output(Command::new("rustc").args(["--print", "target-libdir", "--target", target]));
    asked.is_ok_and(|folder| {
        fs::read_dir(String::from_utf8_lossy(&folder).trim()).is_ok_and(|mut found| found.next().is_some())
    })
}

/// What a node fetches for a machine's pod under KVM stays this small.
const RVMM_LIMIT: u64 = 10 << 20;

fn keep_small(written: &[Written]) -> Result<()> {
    match written
        .iter()
        .find(|image| image.name == "rvmm" && image.packed > RVMM_LIMIT)
    {
        Some(image) => bail!(
            "rvmm for {} has {} bytes, more than {RVMM_LIMIT}",
            image.arch,
            image.packed
        ),
        None => Ok(()),
    }
}

fn print(written: &[Written]) {
    println!("{:12} {:8} {:>9}", "image", "for", "MiB");
    for image in written {
        // Tenths, rounded up: what must not grow is not rounded away.
        let tenths = (image.packed * 10).div_ceil(1 << 20);
        println!(
            "{:12} {:8} {:>7}.{}",
            image.name,
            image.arch,
            tenths / 10,
            tenths % 10
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_that_nobody_has_is_refused_by_name() {
        let error = wanted(&["sparc".to_owned()]).map(drop).unwrap_err().to_string();
        assert_eq!(
            error,
            "no images are made for sparc; known: riscv64, amd64, arm64"
        );
    }

    #[test]
    fn programs_are_told_no_path_of_this_machine_and_the_innermost_counts() {
        let place = target_dir().join("images-build");
        let flags = rust_flags(&place).unwrap();
        let remapped: Vec<_> = flags
            .split('\u{1f}')
            .filter_map(|flag| flag.strip_prefix("--remap-path-prefix="))
            .collect();
        let expected = [
            format!("{}=/cargo", cargo_home().unwrap().display()),
            format!("{}=/rvm", cross::workspace().display()),
            format!("{}=/target", place.display()),
        ];
        assert_eq!(remapped, expected);
    }

    #[test]
    fn all_architectures_are_built_for_unless_some_are_named() {
        let names = |asked: &[&str]| -> Vec<&str> {
            let asked: Vec<String> = asked.iter().map(|&name| name.to_owned()).collect();
            wanted(&asked).unwrap().into_iter().map(|one| one.name).collect()
        };
        assert_eq!(names(&[]), ["riscv64", "amd64", "arm64"]);
        assert_eq!(names(&["arm64", "riscv64"]), ["riscv64", "arm64"]);
    }
}
