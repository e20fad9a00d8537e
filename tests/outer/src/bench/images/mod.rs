//! Images on this machine: our way beside the usual tools', and where the time of a start goes.
//!
//! ```text
//!   sample ──skopeo──► docker-registry ─┬─ rvm-handler: pull, root archive      claimed ─► preparing ─► handed over
//!                                       └─ skopeo copy, umoci unpack, mke2fs -d
//!   demo's image, warm ──► rvm apply ─► … ─► the guest's prompt                 start.rs
//! ```
//!
//! Unlike the lab's, these times are those of this machine's clock, and each has the processors' time beside it, since others
//! may be at work here. Both ways go in turn, each from an empty folder.

mod handler;
mod here;
mod sample;
mod start;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rvm_guests::image_tools::{self, ImageTools};
use rvm_guests::{Cache, Toolbox, command, cross, demo, registry};
use tempfile::TempDir;

use super::System;
use super::report::Figure;
use handler::{Handler, Programs};
use here::{Server, Spent};

/// Rounds, of which the middle counts.
const ROUNDS: u32 = 5;

/// The image's name in the registry.
const NAME: &str = "bench/sample:1";

/// Room for the image's files and a file system's own.
const FILE_SYSTEM: &str = "512M";

/// A process that ends: nothing is to run when only images are measured.
const NO_VMM: &str = "/bin/false";

/// What one way took.
struct Round {
    pull: Spent,
    unpack: Spent,
    /// What makes a file system of it, where that is a step of its own.
    rest: Spent,
}

/// Measures images.
pub fn measure(cache: &Cache) -> Result<Vec<Figure>> {
    pulls(cache, &programs(cache)?)
}

/// Measures starts.
pub fn measure_starts(cache: &Cache) -> Result<Vec<Figure>> {
    start::measure(&programs(cache)?)
}

/// Builds what is measured, for this machine, as it is installed.
fn programs(cache: &Cache) -> Result<Programs> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "--release"]);
    for package in ["rvm-handler", "rvm", "rvmm"] {
        cargo.args(["--package", package]);
    }
    command::run(cargo.current_dir(cross::workspace())).context("cannot build what is measured")?;
    let toolbox = Toolbox::open(cache)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [toolbox.bin_dir()]
        .into_iter()
        .chain(std::env::split_paths(&path));
    Ok(Programs {
        folder: cross::target_dir().join("release"),
        environment: vec![
            ("PATH", std::env::join_paths(folders)?),
            ("RVMM_OPENSBI", toolbox.opensbi().into()),
        ],
        guests: demo::build(cache)?.folder,
    })
}

fn pulls(cache: &Cache, programs: &Programs) -> Result<Vec<Figure>> {
    let tools = image_tools::open(cache)?;
    let folder = tempfile::Builder::new().prefix("rvm-bench-").tempdir()?;
    let (_registry, port) = registry(cache, &folder)?;
    let place = format!("127.0.0.1:{port}/{NAME}");
    let layout = format!("oci:{}:{}", sample::layout(cache)?.display(), sample::TAG);
    let mut push = skopeo(&tools, &folder);
    push.args(["--dest-tls-verify=false", &layout, &format!("docker://{place}")]);
    here::run(&mut push)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(our_way(programs, &place)?);
        theirs.push(their_way(&tools, &place)?);
    }
    let mut figures = Vec::new();
    for (system, rounds) in [(System::Rvmm, ours), (System::Tools, theirs)] {
        figures.extend(rows(system, &rounds));
    }
    Ok(figures)
}

fn rows(system: System, rounds: &[Round]) -> Vec<Figure> {
    let of = |what: fn(&Round) -> f64| rounds.iter().map(what).collect::<Vec<f64>>();
    let rows = [
        ("image-pull", of(|round| round.pull.wall)),
        ("image-pull-cpu", of(|round| round.pull.cpu)),
        ("image-pull-unpack", of(|round| (round.pull + round.unpack).wall)),
        (
            "image-pull-unpack-cpu",
            of(|round| (round.pull + round.unpack).cpu),
        ),
        ("image-to-root", of(|round| (round.unpack + round.rest).wall)),
        ("image-to-root-cpu", of(|round| (round.unpack + round.rest).cpu)),
    ];
    rows.iter()
        .filter_map(|(row, runs)| Figure::wall(row, system, runs))
        .collect()
}

/// The handler, from its claim on. What it unpacks is what boots: a file system needs no step of its own.
fn our_way(programs: &Programs, place: &str) -> Result<Round> {
    let mirror = "unused.example=http://127.0.0.1:1";
    let mut handler = Handler::start(programs, mirror, Path::new(NO_VMM))?;
    let before = handler.cpu()?;
    handler.apply("sample", place)?;
    let claimed = handler.when("sample", "claimed")?;
    let pulled = handler.when("sample", "preparing")?;
    let between = handler.cpu()?;
    let made = handler.when("sample", "handed over")?;
    let after = handler.cpu()?;
    Ok(Round {
        pull: Spent {
            wall: pulled - claimed,
            cpu: between - before,
        },
        unpack: Spent {
            wall: made - pulled,
            cpu: after - between,
        },
        rest: Spent { wall: 0.0, cpu: 0.0 },
    })
}

fn their_way(tools: &ImageTools, place: &str) -> Result<Round> {
    let folder = tempfile::Builder::new().prefix("rvm-bench-").tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let image = format!("{}:1", at("layout").display());
    let mut copy = skopeo(tools, &folder);
    copy.args([
        "--override-arch",
        "riscv64",
        "--override-os",
        "linux",
        "--src-tls-verify=false",
    ])
    .args([&format!("docker://{place}"), &format!("oci:{image}")]);
    let mut unpack = Command::new(&tools.umoci);
    unpack.arg("unpack");
    if !rustix::process::geteuid().is_root() {
        unpack.arg("--rootless");
    }
    unpack.args(["--image", &image]).arg(at("bundle"));
    let mut make = Command::new(&tools.mke2fs);
    make.args(["-q", "-t", "ext4", "-d"])
        .arg(at("bundle/rootfs"))
        .arg(at("root.ext4"))
        .arg(FILE_SYSTEM);
    Ok(Round {
        pull: here::run(&mut copy)?,
        unpack: here::run(&mut unpack)?,
        rest: here::run(&mut make)?,
    })
}

/// `skopeo copy`, which keeps what it works on in a folder of ours.
fn skopeo(tools: &ImageTools, folder: &TempDir) -> Command {
    let mut skopeo = Command::new(&tools.skopeo);
    skopeo
        .args(["--insecure-policy", "--tmpdir"])
        .arg(folder.path())
        .args(["copy", "--quiet"]);
    skopeo
}

/// A registry on loopback, and its port.
fn registry(cache: &Cache, folder: &TempDir) -> Result<(Server, u16)> {
    const LISTENS: &str = "listening on 127.0.0.1:";
    let config: PathBuf = folder.path().join("config.yml");
    fs::write(
        &config,
        "version: 0.1\nlog: {level: info}\nhttp: {addr: \"127.0.0.1:0\"}\n\
         storage: {filesystem: {rootdirectory: store}}\n",
    )?;
    let mut command = Command::new(registry::server(cache)?);
    command.arg("serve").arg(&config).current_dir(folder.path());
    let mut server = Server::start(&mut command, folder.path().join("registry.log"))?;
    let line = server.line(&[LISTENS])?;
    let after = line.split_once(LISTENS).map_or("", |(_, after)| after);
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    Ok((server, digits.parse().context("a registry without a port")?))
}
