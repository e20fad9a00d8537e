//! The checks and the tests, in the order in which they tell the most for their time.
//!
//! A check that fails does not keep the tests from running, and nextest's own summary is the last thing printed; the
//! task fails if anything failed.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use rvm_guests::command::output;
use rvm_guests::cross::workspace;

use crate::build::{self, Built};
use crate::setup::{self, ForTesting};
use crate::{reference, step, tidy as rules};

/// Checks and tests everything.
pub fn run(full: bool, nextest: &[String]) -> Result<ExitCode> {
    let ready = setup::all()?;
    let mut failed = checks(&ready)?;
    let built = build::all(&ready.building)?;
    step::heading("pages of options");
    for page in reference::stale(&built.here)? {
        failed.push(format!("{} (run `cargo xtask reference`)", page.display()));
    }
    for check in &failed {
        eprintln!("FAILED: {check}");
    }
    let mut tests = nextest_command(&ready.tools.join("cargo-nextest"), "run", full);
    tests.args(nextest).envs(environment(&ready, &built)?);
    let status = step::status("tests", &mut tests)?;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(0) if failed.is_empty() => Ok(ExitCode::SUCCESS),
        Some(0) | None => Ok(ExitCode::FAILURE),
        Some(code) => Ok(ExitCode::from(code)),
    }
}

/// Prints the full names of the tests, one a line.
pub fn list(full: bool) -> Result<ExitCode> {
    let ready = setup::for_building()?;
    let nextest = crate::programs::folder(&ready.cache)?.join("cargo-nextest");
    let mut list = nextest_command(&nextest, "list", full);
    list.args(["--message-format", "oneline", "--cargo-quiet"]);
    let status = list.status().context("cannot run cargo-nextest")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Checks the house rules alone.
pub fn tidy() -> Result<ExitCode> {
    Ok(if is_tidy()? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Measures, in the lab.
pub fn bench(arguments: &[String]) -> Result<ExitCode> {
    let ready = setup::all()?;
    let built = build::all(&ready.building)?;
    let mut bench = step::cargo();
    bench
        .args(["run", "--quiet", "--package", "rvm-outer", "--bin", "bench", "--"])
        .args(arguments);
    let status = step::status("bench", bench.envs(environment(&ready, &built)?))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs every check, and returns the names of those that failed.
fn checks(ready: &ForTesting) -> Result<Vec<String>> {
    let mut failed = Vec::new();
    let mut check = |what: &str, command: &mut Command| -> Result<()> {
        if !step::status(what, command)?.success() {
            failed.push(what.to_owned());
        }
        Ok(())
    };
    check("format", step::cargo().args(["fmt", "--all", "--check"]))?;
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ];
    check("clippy", step::cargo().args(clippy))?;
    let mut deny = Command::new(ready.tools.join("cargo-deny"));
    deny.args([
        "--workspace",
        "--config",
        ".deny.toml",
        "check",
        "bans",
        "licenses",
        "sources",
    ]);
    check("dependencies", deny.current_dir(workspace()))?;
    step::heading("examples in the documentation");
    if let Err(error) = output(step::cargo().args(["test", "--workspace", "--doc", "--quiet"])) {
        eprintln!("{error:#}");
        failed.push("examples in the documentation".to_owned());
    }
    step::heading("house rules");
    if !is_tidy()? {
        failed.push("house rules".to_owned());
    }
    Ok(failed)
}

fn is_tidy() -> Result<bool> {
    let found = rules::check(workspace())?;
    for problem in &found {
        eprintln!("{problem}");
    }
    Ok(found.is_empty())
}

fn nextest_command(program: &std::path::Path, verb: &str, full: bool) -> Command {
    let mut nextest = Command::new(program);
    nextest.args([
        "nextest",
        verb,
        "--workspace",
        "--profile",
        if full { "full" } else { "default" },
    ]);
    nextest.current_dir(workspace());
    nextest
}

/// How tests find what was made for them.
fn environment(ready: &ForTesting, built: &Built) -> Result<Vec<(&'static str, OsString)>> {
    let mut environment = setup::environment_of_programs(&ready.toolbox)?;
    environment.extend([
        ("RVM_CACHE", ready.building.cache.root().into()),
        ("RVM_BIN_DIR", built.here.clone().into()),
        ("RVM_RISCV64_BIN_DIR", built.riscv64.clone().into()),
        ("RVM_KUBECTL", ready.kube.join("kubectl").into()),
        ("KUBEBUILDER_ASSETS", ready.kube.clone().into()),
    ]);
    Ok(environment)
}
