//! What was found, beside what KubeVirt publishes: as a table for people, and as a line each for programs.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// How many.
    Count,
    /// How many for each machine.
    Ratio,
}

/// One value.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What was measured.
    pub row: &'static str,
    /// The value.
    pub value: f64,
    /// What it counts.
    pub unit: Unit,
    /// What KubeVirt publishes of the same, if anything.
    pub kubevirt: &'static str,
}

// === impl Figure ===

impl Figure {
    fn shown(&self) -> String {
        let value = self.value;
        match self.unit {
            Unit::Seconds => format!("{value:.2} s"),
            Unit::Bytes => format!("{:.1} MB", value / 1e6),
            Unit::Count => format!("{value:.0}"),
            Unit::Ratio => format!("{value:.2}"),
        }
    }
}

/// The value that so many per cent are at most.
pub fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100);
    values.get(rank.checked_sub(1)?).copied()
}

/// A line for each figure.
pub fn table(figures: &[Figure]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["row", "rvm", "KubeVirt, published"]);
    for figure in figures {
        table.add_row([figure.row, &figure.shown(), figure.kubevirt]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// One JSON object a line.
pub fn lines(figures: &[Figure]) -> String {
    figures.iter().fold(String::new(), |mut text, figure| {
        let unit = match figure.unit {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::Count => "count",
            Unit::Ratio => "for each",
        };
        let line = json!({"row": figure.row, "system": "rvm", "value": figure.value, "unit": unit});
        let _ = writeln!(text, "{line}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(
            (percentile(&values, 50), percentile(&values, 95)),
            (Some(10.0), Some(19.0))
        );
        assert_eq!((percentile(&[3.0], 95), percentile(&[], 50)), (Some(3.0), None));
    }

    #[test]
    fn people_see_units_and_what_kubevirt_publishes() {
        let figures = [Figure {
            row: "rss",
            value: 2.5e6,
            unit: Unit::Bytes,
            kubevirt: "much",
        }];
        let shown = table(&figures);
        assert!(shown.contains("2.5 MB") && shown.contains("much"), "{shown}");
        assert!(lines(&figures).contains("\"unit\":\"bytes\""));
    }
}
