//! `rvm-lab-agent serve ADDRESS` runs commands for whoever connects; `rvm-lab-agent measure` and `first-entry` time one here.

use std::env;
use std::fs::File;
use std::io::{Write, stderr, stdout};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, bail};
use rvm_outer_agent::{first_entry, measure, serve};

/// What the agent prints when it can be connected to.
const READY: &str = "rvm-lab: ready";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["serve", address] => listen(address),
        ["measure", "--marker", marker, "--", command @ ..] => measured(marker, command),
        ["first-entry", "--", command @ ..] => entered(command),
        _ => Err(anyhow::anyhow!(
            "usage: rvm-lab-agent serve ADDRESS | measure --marker TEXT -- COMMAND... | first-entry -- COMMAND..."
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "rvm-lab-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn listen(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    writeln!(stdout(), "{READY}")?;
    for connection in listener.incoming() {
        let connection = connection.context("cannot accept")?;
        connection.set_nodelay(true)?;
        thread::spawn(move || {
            // A request that cannot be read, or a client that left before its answer, concerns nobody else.
            if let Err(error) = serve::serve(File::from(OwnedFd::from(connection)), &[]) {
                let _ = writeln!(stderr(), "rvm-lab-agent: {error:#}");
            }
        });
    }
    Ok(())
}

fn measured(marker: &str, command: &[&str]) -> Result<()> {
    let measured = measure::measure(marker.as_bytes(), command)?;
    writeln!(stdout(), "{measured}")?;
    if !measured.clean {
        bail!("the command failed");
    }
    Ok(())
}

fn entered(command: &[&str]) -> Result<()> {
    let took = first_entry::first_entry(Path::new(first_entry::TRACING), command)?;
    writeln!(stdout(), "ENTERED first_entry_ns={}", took.as_nanos())?;
    Ok(())
}
