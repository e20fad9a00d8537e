//! `make bench`: measures, prints a table, and writes `target/bench/results.jsonl` and `chart.svg`.

use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use rvm_guests::{Cache, cross};
use rvm_outer::bench::{self, Rows, chart, report};

/// Compares rvmm with QEMU-KVM and the bare machine, in an emulated host whose clock counts instructions.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Args {
    /// Where the results go.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Where the picture of them goes.
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// Only these, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Rows>,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(status) => status,
        Err(error) => {
            let _ = writeln!(stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<ExitCode> {
    let results = args
        .results
        .unwrap_or_else(|| cross::target_dir().join("bench/results.jsonl"));
    let rows = if args.rows.is_empty() {
        Rows::ALL.to_vec()
    } else {
        args.rows
    };
    let (mut figures, mut status) = (Vec::new(), ExitCode::SUCCESS);
    let progress = |step: &str| Ok(writeln!(stderr(), "bench: {step}")?);
    bench::run(&Cache::open()?, &rows, progress, |group| match group {
        Ok(more) => figures.extend(more),
        Err(error) => {
            let _ = writeln!(stderr(), "bench: FAILED: {error:#}");
            status = ExitCode::FAILURE;
        }
    })?;
    let chart = args
        .chart
        .unwrap_or_else(|| cross::target_dir().join("bench/chart.svg"));
    report::write(&report::lines(&figures), &results)?;
    report::write(&chart::draw(&figures), &chart)?;
    writeln!(stdout(), "{}", report::table(&figures))?;
    writeln!(
        stdout(),
        "written to {} and {}",
        results.display(),
        chart.display()
    )?;
    Ok(status)
}
