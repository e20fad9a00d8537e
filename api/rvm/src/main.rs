//! `rvm`: the command line of rvm.v1. The same program is `kubectl-rvm` and `kubectl-virt`, which kubectl finds by
//! their names; then its help says so.
//!
//! ```text
//!   arguments ──args──► Cli ─┬─connect──► Machines client (rvm.v1)       ─┬─verbs/*──► screen (table, JSON, YAML, console)
//!                            └─cluster──► Kubernetes API, by kubeconfig  ─┘
//! ```
//!
//! Exit status: 0 done, 1 an error (one line on standard error), 2 the command line was wrong. Whoever stops reading
//! our output (`rvm get | head`) is no error.

mod args;
mod cluster;
mod completion;
mod connect;
mod credentials;
mod paths;
mod screen;
mod signals;
mod terminal;
mod verbs;
mod websocket;

use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

use crate::args::{Cli, called_as};

fn main() -> ExitCode {
    let command = called_as(Cli::command(), std::env::args_os().next());
    match completion::answer(&command) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return report(&error),
    }
    let cli = command
        .clone()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    match cli {
        Ok(cli) => run(cli),
        Err(wrong) => refuse(&wrong, command.get_bin_name().unwrap_or("rvm")),
    }
}

/// Help is printed as it is, a mistake as one line. Where nothing can be printed there is nobody to tell.
fn refuse(wrong: &clap::Error, program: &str) -> ExitCode {
    let is_help = wrong.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if is_help || !wrong.use_stderr() {
        let _ = wrong.print();
    } else {
        let line = screen::usage_line(&wrong.to_string(), program);
        anstream::eprintln!("{}", screen::error_line(&anyhow::anyhow!(line)));
    }
    ExitCode::from(u8::try_from(wrong.exit_code()).unwrap_or(2))
}

fn run(cli: Cli) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(verbs::run(cli));
            // A thread may be waiting for the terminal, for ever; it is not waited for.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    anstream::eprintln!("{}", screen::error_line(error));
    ExitCode::FAILURE
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|io| io.kind() == io::ErrorKind::BrokenPipe)
}
