//! `make fuzz`: each target of `fuzz/` under libFuzzer for a while, guided by the compiler's coverage, on stable Rust.
//!
//! ```text
//!   fuzz/corpus/NAME (kept) ─► rvm-fuzz ─┬─► target/fuzz/corpus/NAME   what reaches something new, for the next run
//!                                        └─► fuzz/corpus/NAME/crash-…  what fails: `cargo test -p rvm-fuzz` fails with it
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rvm_guests::command::output;
use rvm_guests::cross::{target_dir, workspace};

use crate::{packages, setup, step};

/// What has the compiler note which edges are taken, and what is compared with what.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks";
/// Seconds that one script may take: far more than any does.
const HANG: u32 = 30;
/// MiB that a target may take: its guest's RAM, and more.
const MEMORY: u32 = 4096;

/// Which targets, and for how long.
#[derive(Args)]
pub struct Wish {
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Where chance starts, to repeat a run; another one each time if none is given
    #[arg(long)]
    seed: Option<u32>,
    /// The targets; all if none is named
    targets: Vec<String>,
}

/// Fuzzes, and fails if a target did.
pub fn run(wish: &Wish) -> Result<ExitCode> {
    let kept = workspace().join("fuzz/corpus");
    let all = names(&kept)?;
    let unknown = wish.targets.iter().find(|name| !all.contains(name));
    ensure!(
        unknown.is_none(),
        "there is no target {}; there are {}",
        unknown.map_or("", String::as_str),
        all.join(", ")
    );
    let wanted = if wish.targets.is_empty() {
        &all
    } else {
        &wish.targets
    };
    setup::for_building()?;
    packages::ensure_for_fuzzing()?;
    let program = build()?;
    let mut failed = Vec::new();
    // Zero means to libFuzzer that it should choose one itself.
    let seed = wish.seed.unwrap_or_else(std::process::id).max(1);
    for name in wanted {
        let mut fuzzer = fuzzer(&program, &kept, name)?;
        fuzzer
            .arg(format!("-max_total_time={}", wish.seconds))
            .arg(format!("-seed={seed}"));
        if !step::status(&format!("fuzz {name} (seed {seed})"), &mut fuzzer)?.success() {
            failed.push(name.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "FAILED: {}; what did it is in fuzz/corpus, as crash-, oom- or timeout-",
        failed.join(", ")
    );
    Ok(ExitCode::FAILURE)
}

/// The targets have a folder each.
fn names(kept: &Path) -> Result<Vec<String>> {
    let mut names = fs::read_dir(kept)
        .with_context(|| format!("cannot read {}", kept.display()))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn build() -> Result<PathBuf> {
    let about = output(Command::new("rustc").arg("-vV"))?;
    let about = String::from_utf8_lossy(&about);
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say what it compiles for")?;
    // With a target named, build scripts and macros go without what is meant for the fuzzer.
    let folder = target_dir().join("fuzz");
    let mut cargo = step::cargo();
    cargo
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--package",
            "rvm-fuzz",
        ])
        .args(["--features", "libfuzzer", "--target", host, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", COVERAGE)
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    step::run("fuzzer (about 2 minutes the first time)", &mut cargo)?;
    Ok(folder.join(host).join("release/rvm-fuzz"))
}

fn fuzzer(program: &Path, kept: &Path, name: &str) -> Result<Command> {
    let (kept, grown) = (kept.join(name), target_dir().join("fuzz/corpus").join(name));
    fs::create_dir_all(&grown).with_context(|| format!("cannot make {}", grown.display()))?;
    let mut fuzzer = Command::new(program);
    fuzzer
        .env("RVM_FUZZ_TARGET", name)
        .arg(format!("-timeout={HANG}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-artifact_prefix={}/", kept.display()))
        .args(["-print_final_stats=1", "-close_fd_mask=1", "-verbosity=0"])
        .args([grown, kept]);
    Ok(fuzzer)
}
