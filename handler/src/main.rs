//! `rvm-handler`: arguments → settings → serve until told to end.
//!
//! Exit status: 0 ended by a signal, 1 an error, 2 the command line was wrong; an error is one line on standard error.

mod args;
mod local_door;
mod serve;

use std::process::ExitCode;

use clap::Parser;
use rvm_handler::images::pull::child;
use rvm_handler::networks::outside;

/// The exit status for a command line that is not valid.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // We start ourselves so, for each image that is pulled, and to keep the node's networks.
    match std::env::args_os().nth(1) {
        Some(word) if word == child::WORD => return child::main(),
        Some(word) if word == outside::WORD => return outside::main(),
        _ => {}
    }
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return refuse(&error),
    };
    match args.resolve().and_then(serve::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rvm-handler: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Help and version go where they are read; a mistake is one line.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader that went away has seen enough.
        error.print().ok();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().trim_start_matches("error: ");
    // A list of what is missing stands below its heading.
    let missing: Vec<&str> = lines.take_while(|line| line.starts_with("--")).collect();
    let missing = if missing.is_empty() {
        String::new()
    } else {
        format!(" {}", missing.join(", "))
    };
    eprintln!("rvm-handler: {first}{missing}; see rvm-handler --help");
    ExitCode::from(USAGE)
}
