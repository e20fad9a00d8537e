//! A thousand machines through a real kube-apiserver. That needs a cluster, which the lab knows nothing of, so another program does it
//! (`tests/scale`), prints its own table beside what KubeVirt publishes, and hands its figures over.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use rvm_guests::{command, cross};
use serde_json::Value;

use super::System;
use super::report::{Figure, Unit};

/// The rows that are kept, as the program calls them.
const ROWS: [&str; 18] = [
    "creation-to-running-p50",
    "creation-to-running-p95",
    "creation-to-running-p50-watched",
    "creation-to-running-p95-watched",
    "creation-to-running-most-watched",
    "creations-a-second",
    "requests-for-each-by-handler",
    "changes-for-each-by-handler",
    "requests-for-each-by-api",
    "changes-for-each-by-api",
    "rss-api-and-controller",
    "rss-handler",
    "rss-handler-s-helpers",
    "rss-in-all",
    "requests-after-restart-of-api",
    "changes-after-restart-of-api",
    "requests-after-restart-of-handler",
    "changes-after-restart-of-handler",
];

/// Builds what is measured, for this machine, as it is installed, and has it measured.
pub fn measure() -> Result<Vec<Figure>> {
    let cargo = |arguments: &[&str]| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--locked"]).args(arguments);
        command::run(cargo.current_dir(cross::workspace())).context("cannot build what is measured")
    };
    cargo(&["--release", "--package", "rvm-handler", "--package", "rvm-server"])?;
    cargo(&["--package", "rvm-scale"])?;
    let folder = tempfile::tempdir()?;
    let results = folder.path().join("results.jsonl");
    let mut scale = Command::new(cross::target_dir().join("debug/rvm-scale"));
    scale.arg("--results").arg(&results);
    scale.env("RVM_BIN_DIR", cross::target_dir().join("release"));
    let status = scale.status().context("cannot run rvm-scale")?;
    ensure!(status.success(), "rvm-scale: {status}");
    std::fs::read_to_string(&results)?
        .lines()
        .filter_map(figure)
        .collect()
}

/// A line of the program's; none that is not kept.
fn figure(line: &str) -> Option<Result<Figure>> {
    let line: Value = match serde_json::from_str(line) {
        Ok(line) => line,
        Err(error) => return Some(Err(error.into())),
    };
    let row = ROWS.into_iter().find(|row| line["row"] == *row)?;
    let unit = match line["unit"].as_str() {
        Some("seconds") => Unit::Seconds,
        Some("bytes") => Unit::Bytes,
        Some("for each") => Unit::Ratio,
        _ => Unit::Count,
    };
    let value = line["value"].as_f64()?;
    Some(Ok(Figure {
        row,
        system: System::Rvmm,
        value,
        spread: (value, value),
        unit,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_taken_over_with_their_units() {
        let line = r#"{"row":"rss-handler","system":"rvm","unit":"bytes","value":2097152.0}"#;
        let figure = figure(line).unwrap().unwrap();
        assert_eq!((figure.row, figure.shown().as_str()), ("rss-handler", "2.00 MiB"));
        assert!(super::figure(r#"{"row":"another"}"#).is_none());
        assert!(super::figure("no").unwrap().is_err());
    }
}
