//! One virtual machine in one process: arguments → order → supervisor → exit status.

mod accelerator;
mod args;
mod awaited;
mod boot_args;
mod ctl;
mod guest;
mod startup;
mod supervise;
mod tell;
mod throttle;
mod walls;

use std::io::Write;
use std::process::ExitCode;

use args::{Args, Order};
use clap::Parser;
use rvmm_control::EndReason;
use rvmm_hypervisor::{isa, probe};
use supervise::{Finish, Manner, Place, Supervisor};

/// The exit status for a command line that is not valid.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    init_log();
    let arguments: Vec<_> = std::env::args_os().collect();
    if tell::is_cpu_help(&arguments) {
        // A reader that went away has seen enough.
        std::io::stdout().write_all(tell::cpu_help().as_bytes()).ok();
        return ExitCode::SUCCESS;
    }
    let mut args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => return refuse(&error),
    };
    if let Some(ctl) = args.take_ctl() {
        return ctl.run().unwrap_or_else(|error| {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        });
    }
    let Some(finish) = live(args) else {
        return ExitCode::SUCCESS;
    };
    let _ = rvmm_backends::console::raw::restore_all();
    match finish.ending.reason {
        EndReason::Failed => say(&finish.ending.message),
        EndReason::Reset | EndReason::Killed | EndReason::Overdue => {
            tracing::info!("{}", finish.ending.message);
        }
        EndReason::Poweroff => {}
    }
    ExitCode::from(finish.status)
}

/// Claims the run directory before anything else, so that whatever goes wrong from then on is written down there.
/// `None` where only something was to be told.
fn live(args: Args) -> Option<Finish> {
    let failed = |error: anyhow::Error| Finish::failed(format!("{error:#}"));
    if let Some((folder, grace)) = args.awaited() {
        return Some(awaited::live(folder, grace).unwrap_or_else(failed));
    }
    let place = match args.run_dir().map(Place::claim).transpose() {
        Ok(place) => place,
        Err(error) => return Some(failed(error)),
    };
    let order = args.resolve();
    match order.and_then(|order| start(order, place.as_ref(), Manner::default())) {
        Ok(supervisor) => supervisor.map(Supervisor::run),
        Err(error) => {
            let finish = failed(error);
            place.iter().for_each(|place| place.close(&finish.ending));
            Some(finish)
        }
    }
}

/// Makes ready to run the machine; `None` where only something was to be told.
fn start(order: Order, place: Option<&Place>, manner: Manner) -> anyhow::Result<Option<Supervisor<'_>>> {
    // QEMU knows more extensions by name than our table has; a machine is the same under both.
    for switch in order.spec.cpu().switches() {
        isa::find(&switch.extension)?;
    }
    let decision = accelerator::decide(order.spec.accelerator(), probe)?;
    if let Some(to) = &order.dump_dtb {
        return tell::device_tree(&order.spec, decision.accelerator, to).map(|()| None);
    }
    rvmm_hypervisor::install_kick()?;
    Supervisor::new(order.spec, decision, place, manner).map(Some)
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
    let rest: Vec<&str> = lines.take_while(|line| line.starts_with("--")).collect();
    let list = if rest.is_empty() {
        String::new()
    } else {
        format!(" {}", rest.join(", "))
    };
    say(&format!("{first}{list}; see rvmm --help"));
    ExitCode::from(USAGE)
}

/// A last word for the user. Nobody may be there to hear it.
fn say(text: &str) {
    writeln!(std::io::stderr(), "rvmm: {text}").ok();
}

fn init_log() {
    let level = match std::env::var("RVMM_LOG").as_deref() {
        Ok("debug") => tracing::Level::DEBUG,
        Ok("info") => tracing::Level::INFO,
        _ => tracing::Level::WARN,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .log_internal_errors(false)
        .init();
}
