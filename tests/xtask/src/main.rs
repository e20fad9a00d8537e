//! Set-up, build, test and bench, in one place. Each command first does all the set-up that it needs.

mod build;
mod fuzz;
mod images;
mod manifests;
mod packages;
mod programs;
mod reference;
mod run;
mod setup;
mod step;
mod suite;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Set-up, build, test and bench of rvm.
#[derive(Parser)]
#[command(name = "cargo xtask", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install the distribution's packages and fill the cache
    Setup,
    /// Build our programs for this machine and for riscv64
    Build,
    /// Boot the demo's machine from its manifest and show its console
    Run {
        /// Build nothing: use our programs as they were built before
        #[arg(long)]
        built: bool,
    },
    /// Check and test everything
    Test {
        /// Run every test, also those that are long
        #[arg(long)]
        full: bool,
        /// Print the tests' names and run nothing
        #[arg(long)]
        list: bool,
        /// Given to nextest as they are, such as names of tests
        #[arg(trailing_var_arg = true)]
        nextest: Vec<String>,
    },
    /// Check the house rules
    Tidy,
    /// Write the CustomResourceDefinitions of `deploy/crds` anew from the Rust types
    Crds,
    /// Write the pages of options and fields anew from the programs and the types
    Reference,
    /// Print the cases of the hostile guest, one a line
    HostileList,
    /// Fuzz: all that reads what a guest, an image or another program has written
    Fuzz(fuzz::Wish),
    /// Build the images that a cluster installs
    Images(images::Wish),
    /// Write the chart's manifests as plain YAML
    Manifests(manifests::Wish),
    /// Measure, in the lab
    Bench {
        /// Given to the bench as they are
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what each case is, and how many there are.
fn hostile_list() -> ExitCode {
    for case in rvm_hostile::cases::all() {
        println!("{case}");
    }
    println!("{} cases", rvm_hostile::cases::all().count());
    ExitCode::SUCCESS
}

fn perform(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup => setup::all().map(|_| ExitCode::SUCCESS),
        Task::Build => build::all(&setup::for_building()?).map(|_| ExitCode::SUCCESS),
        Task::Run { built } => run::run(built),
        Task::Test { full, list: true, .. } => suite::list(full),
        Task::Test { full, nextest, .. } => suite::run(full, &nextest),
        Task::Tidy => suite::tidy(),
        Task::Crds => build::crds().map(|()| ExitCode::SUCCESS),
        Task::Reference => reference::write().map(|()| ExitCode::SUCCESS),
        Task::HostileList => Ok(hostile_list()),
        Task::Fuzz(wish) => fuzz::run(&wish),
        Task::Manifests(wish) => manifests::run(&wish),
        Task::Images(wish) => images::run(&wish),
        Task::Bench { arguments } => suite::bench(&arguments),
    }
}
