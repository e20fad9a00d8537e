//! Gets everything that is not written here: packages, toolchain, and what the cache holds.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use rvm_guests::command::output;
use rvm_guests::{
    Cache, DemoGuest, Toolbox, axe, bench, cross, demo, efi, fence, helm, kube, kube_node, promtool,
    registry, tiny, toolbox, virtiofsd,
};

use crate::{packages, programs, step};

/// What building needs.
pub struct ForBuilding {
    /// The cache folder.
    pub cache: Cache,
}

/// What testing needs besides.
pub struct ForTesting {
    /// What building needs.
    pub building: ForBuilding,
    /// The folder with cargo-nextest and cargo-deny.
    pub tools: PathBuf,
    /// QEMU and firmware.
    pub toolbox: Toolbox,
    /// The folder with kube-apiserver, kube-controller-manager, etcd and kubectl.
    pub kube: PathBuf,
}

/// The packages, and a compiler for riscv64.
pub fn for_building() -> Result<ForBuilding> {
    packages::ensure()?;
    let cache = Cache::open()?;
    let compiler = cross::compiler(&cache).context("cannot get a compiler for riscv64")?;
    if let Some(compiler) = compiler {
        eprintln!("riscv64 programs are compiled by {}", compiler.display());
    }
    Ok(ForBuilding { cache })
}

/// Everything the demo needs.
pub fn for_running() -> Result<(ForBuilding, Toolbox, DemoGuest)> {
    let building = for_building()?;
    let toolbox = Toolbox::open(&building.cache)?;
    let demo = demo::build(&building.cache)?;
    Ok((building, toolbox, demo))
}

/// How our programs find QEMU and its firmware in the cache.
pub fn environment_of_programs(toolbox: &Toolbox) -> Result<Vec<(&'static str, OsString)>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [toolbox.bin_dir()]
        .into_iter()
        .chain(std::env::split_paths(&path));
    Ok(vec![
        ("PATH", std::env::join_paths(folders)?),
        ("RVMM_OPENSBI", toolbox.opensbi().into()),
        (rvm_firmware::FOLDER_VARIABLE, toolbox.firmware_dir().into()),
    ])
}

/// Everything the tests need.
pub fn for_testing() -> Result<ForTesting> {
    let building = for_building()?;
    packages::ensure_for_testing()?;
    ensure_components()?;
    let cache = &building.cache;
    let tools = programs::folder(cache)?;
    let toolbox = Toolbox::open(cache)?;
    toolbox::qemu_img(cache)?;
    registry::server(cache)?;
    axe::script(cache)?;
    promtool::program(cache)?;
    virtiofsd::here(cache)?;
    virtiofsd::for_riscv64(cache)?;
    fence::agent(cache)?;
    tiny::build(cache)?;
    bench::build(cache)?;
    demo::build(cache)?;
    efi::build(cache)?;
    for emulator in [false, true] {
        rvm_outer::image::Image::open(cache, emulator).context("cannot make the lab's host")?;
    }
    let kube = kube::assets(cache)?;
    kube_node::here(cache)?;
    kube_node::machine(cache)?;
    helm::program(cache)?;
    Ok(ForTesting {
        building,
        tools,
        toolbox,
        kube,
    })
}

/// Toolchains of a minimal set-up lack what checks the sources.
fn ensure_components() -> Result<()> {
    let is_there = |what: &str| output(step::cargo().args([what, "--version"])).is_ok();
    if is_there("clippy") && is_there("fmt") {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    step::run(
        "clippy and rustfmt",
        rustup.args(["component", "add", "clippy", "rustfmt"]),
    )
    .context("please add clippy and rustfmt to the Rust toolchain")
}

/// Everything.
pub fn all() -> Result<ForTesting> {
    step::heading("set-up (about 15 minutes on two cores the first time, seconds after that)");
    let ready = for_testing()?;
    eprintln!("everything is in {}", ready.building.cache.root().display());
    Ok(ready)
}
