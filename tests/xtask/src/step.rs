//! One step of a task: a program that runs with its output on this terminal, under a heading, with its time.

use std::process::{Command, ExitStatus};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Says what comes now.
pub fn heading(what: &str) {
    eprintln!("==> {what}");
}

/// Runs `command` under the heading `what`; its output is the user's to see.
pub fn status(what: &str, command: &mut Command) -> Result<ExitStatus> {
    heading(what);
    let start = Instant::now();
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    let seconds = start.elapsed().as_secs();
    if seconds > 0 {
        eprintln!("    {what}: {seconds} s");
    }
    Ok(status)
}

/// As [`status`], and an error where the program fails.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    let status = status(what, command)?;
    if !status.success() {
        bail!("{what} failed ({status})");
    }
    Ok(())
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(rvm_guests::cross::workspace());
    cargo
}
