//! `rvm-handler`: arguments → settings → serve until told to end.

mod args;
mod serve;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match args::Args::parse().resolve().and_then(serve::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rvm-handler: {error:#}");
            ExitCode::FAILURE
        }
    }
}
