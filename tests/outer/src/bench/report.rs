//! What was measured: as a table for people, and as a line each for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use super::System;

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds of the clock that counts instructions.
    VirtualSeconds,
    /// Seconds of this machine's clock, or of its processors.
    Seconds,
    /// Bytes.
    Bytes,
    /// How many.
    Count,
    /// How many for each of something.
    Ratio,
}

/// Shorter times are shown in milliseconds.
const SHORT: f64 = 0.1;

/// One measured value.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub row: &'static str,
    /// Of what.
    pub system: System,
    /// The value: the middle one, where there are several runs.
    pub value: f64,
    /// The smallest and the largest of several runs.
    pub spread: (f64, f64),
    /// What it counts.
    pub unit: Unit,
}

impl Figure {
    /// The middle one of some times, with the smallest and largest beside it; `None` where there are none.
    #[must_use]
    pub fn seconds(row: &'static str, system: System, runs: &[f64]) -> Option<Self> {
        let mut runs: Vec<f64> = runs.iter().map(|run| (run * 1e9).round() / 1e9).collect();
        runs.sort_by(f64::total_cmp);
        Some(Self {
            row,
            system,
            value: *runs.get(runs.len() / 2)?,
            spread: (*runs.first()?, *runs.last()?),
            unit: Unit::VirtualSeconds,
        })
    }

    /// The same in seconds of this machine.
    #[must_use]
    pub fn wall(row: &'static str, system: System, runs: &[f64]) -> Option<Self> {
        let unit = Unit::Seconds;
        Self::seconds(row, system, runs).map(|figure| Self { unit, ..figure })
    }

    /// The value for people, with the spread where there is one.
    #[must_use]
    pub fn shown(&self) -> String {
        let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
        match self.unit {
            Unit::VirtualSeconds if self.value < SHORT => format!("{:.3} ms", self.value * 1e3),
            Unit::Seconds if self.value < SHORT => format!(
                "{:.1} ms ({:.1} … {:.1})",
                self.value * 1e3,
                self.spread.0 * 1e3,
                self.spread.1 * 1e3
            ),
            Unit::VirtualSeconds | Unit::Seconds => format!(
                "{:.3} s ({:.3} … {:.3})",
                self.value, self.spread.0, self.spread.1
            ),
            Unit::Ratio => format!("{:.3}", self.value),
            Unit::Bytes => format!("{:.2} MiB", mebibytes(self.value)),
            Unit::Count => format!("{:.0}", self.value),
        }
    }
}

/// The table: a line for each row, a column for each system, and how rvmm compares.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "row",
        "bare",
        "rvmm",
        "qemu-kvm",
        "usual tools",
        "rvmm / the other",
    ]);
    for row in rows(figures) {
        let of = |system| {
            figures
                .iter()
                .find(|figure| figure.row == row && figure.system == system)
        };
        let mut line = vec![row.to_owned()];
        line.extend(System::ALL.map(|system| of(system).map_or_else(|| "–".to_owned(), Figure::shown)));
        let other = of(System::QemuKvm).or_else(|| of(System::Tools));
        line.push(match (of(System::Rvmm), other) {
            (Some(ours), Some(theirs)) => format!("{:.3}", ours.value / theirs.value),
            _ => "–".to_owned(),
        });
        table.add_row(line);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// The rows in the order they were measured.
pub fn rows(figures: &[Figure]) -> Vec<&'static str> {
    let mut rows = Vec::new();
    for figure in figures {
        if !rows.contains(&figure.row) {
            rows.push(figure.row);
        }
    }
    rows
}

/// One JSON object a line.
#[must_use]
pub fn lines(figures: &[Figure]) -> String {
    figures.iter().fold(String::new(), |mut text, figure| {
        let unit = match figure.unit {
            Unit::VirtualSeconds => "virtual seconds",
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::Count => "count",
            Unit::Ratio => "for each",
        };
        let line = json!({ "row": figure.row, "system": figure.system.name(), "value": value(figure), "unit": unit });
        let _ = writeln!(text, "{line}");
        text
    })
}

/// Bytes and counts are whole, whoever reads them.
fn value(figure: &Figure) -> serde_json::Value {
    match figure.unit {
        Unit::VirtualSeconds | Unit::Seconds | Unit::Ratio => json!(figure.value),
        Unit::Bytes | Unit::Count => {
            #[expect(clippy::cast_possible_truncation, reason = "it was a whole number before")]
            let bytes = figure.value as i64;
            json!(bytes)
        }
    }
}

/// Writes a text, all at once.
pub fn write(text: &str, path: &Path) -> Result<()> {
    let folder = path.parent().context("results need a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let half = path.with_added_extension("half");
    fs::write(&half, text).with_context(|| format!("cannot write {}", half.display()))?;
    fs::rename(&half, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Vec<Figure> {
        let row = "boot-exec-to-exit";
        vec![
            Figure::seconds(row, System::Bare, &[1.75]).unwrap(),
            Figure::seconds(row, System::Rvmm, &[2.0, 1.875, 1.25]).unwrap(),
            Figure::seconds(row, System::QemuKvm, &[2.5, 2.5]).unwrap(),
            Figure::bytes("binary-size", System::Rvmm, 1_572_864),
        ]
    }

    #[test]
    fn programs_get_one_object_a_line_with_the_middle_one_of_several_runs() {
        let wanted = "{\"row\":\"boot-exec-to-exit\",\"system\":\"bare\",\"unit\":\"virtual seconds\",\"value\":1.75}\n\
            {\"row\":\"boot-exec-to-exit\",\"system\":\"rvmm\",\"unit\":\"virtual seconds\",\"value\":1.875}\n\
            {\"row\":\"boot-exec-to-exit\",\"system\":\"qemu-kvm\",\"unit\":\"virtual seconds\",\"value\":2.5}\n\
            {\"row\":\"binary-size\",\"system\":\"rvmm\",\"unit\":\"bytes\",\"value\":1572864}\n";
        assert_eq!(lines(&figures()), wanted);
    }

    #[test]
    fn people_get_a_ratio_and_the_spread_of_several_runs() {
        let shown = table(&figures());
        assert!(
            shown.contains("1.750 s") && shown.contains("1.875 s (1.250 … 2.000)"),
            "{shown}"
        );
        assert!(shown.contains("0.750") && shown.contains("1.50 MiB"), "{shown}");
    }

    #[test]
    fn what_the_lab_does_not_measure_is_compared_with_the_usual_tools() {
        let row = "image-pull";
        let figures = [
            Figure::wall(row, System::Rvmm, &[1.0, 0.5, 2.0]).unwrap(),
            Figure::wall(row, System::Tools, &[4.0]).unwrap(),
            Figure::wall("start-pull", System::Rvmm, &[0.0012]).unwrap(),
        ];
        let shown = table(&figures);
        assert!(
            shown.contains("1.000 s (0.500 … 2.000)") && shown.contains("0.250"),
            "{shown}"
        );
        assert!(shown.contains("1.2 ms (1.2 … 1.2)"), "{shown}");
        assert!(lines(&figures).contains("\"unit\":\"seconds\",\"value\":1.0"));
    }
}
