//! The table of `rvm get`: kubectl's columns, widths that fit what is known when a line is printed.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use rvm_types::condition::find;
use rvm_types::names::conditions::READY;
use rvm_types::{Phase, VirtualMachineInstance};

const COLUMNS: [&str; 7] = ["NAMESPACE", "NAME", "AGE", "PHASE", "IP", "NODENAME", "READY"];
const PHASE: usize = 3;
/// Between two columns.
const GAP: usize = 3;

/// A line of the table, cell by cell.
pub struct Row {
    cells: [String; COLUMNS.len()],
    style: Style,
}

/// A table that remembers its widths, so that lines that come later stand under those before.
pub struct Table {
    widths: [usize; COLUMNS.len()],
    /// The first column that is shown.
    first: usize,
    has_header: bool,
}

impl Row {
    /// A machine as it is at this time.
    pub fn new(vmi: &VirtualMachineInstance, now: Timestamp) -> Self {
        let metadata = &vmi.metadata;
        let status = vmi.status.clone().unwrap_or_default();
        let created = metadata.creation_timestamp.as_ref();
        let interface = status.interfaces.first();
        let phase = status.phase.clone().map(String::from).unwrap_or_default();
        let cells = [
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
            created.map_or_else(
                || "<unknown>".to_owned(),
                |created| age(now.as_second() - created.0.as_second()),
            ),
            phase,
            interface
                .and_then(|interface| interface.ip_address.clone())
                .unwrap_or_default(),
            status.node_name.clone().unwrap_or_default(),
            find(&status.conditions, READY)
                .map(|ready| ready.status.clone())
                .unwrap_or_default(),
        ];
        Self {
            cells: cells.map(|cell| printable(&cell)),
            style: style(status.phase.as_ref()),
        }
    }
}

impl Table {
    /// A table with the namespaces or without.
    pub fn new(namespaces: bool) -> Self {
        Self {
            widths: COLUMNS.map(str::len),
            first: usize::from(!namespaces),
            has_header: false,
        }
    }

    /// These lines, under a header if they are the first.
    pub fn lines(&mut self, rows: &[Row]) -> String {
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(&row.cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        if !std::mem::replace(&mut self.has_header, true) {
            let header = Row {
                cells: COLUMNS.map(str::to_owned),
                style: Style::new(),
            };
            self.line(&header, &mut text);
        }
        rows.iter().for_each(|row| self.line(row, &mut text));
        text.trim_end().to_owned()
    }

    fn line(&self, row: &Row, text: &mut String) {
        for (index, cell) in row.cells.iter().enumerate().skip(self.first) {
            let style = if index == PHASE { row.style } else { Style::new() };
            let last = index + 1 == row.cells.len();
            let room = if last {
                0
            } else {
                (self.widths[index] + GAP).saturating_sub(cell.chars().count())
            };
            // Writing to a string does not fail.
            let _ = write!(text, "{style}{cell}{style:#}{:room$}", "");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
}

fn style(phase: Option<&Phase>) -> Style {
    match phase {
        Some(Phase::Running) => AnsiColor::Green.on_default(),
        Some(Phase::Failed | Phase::Unknown) => AnsiColor::Red.on_default(),
        Some(Phase::Pending | Phase::Scheduling | Phase::Scheduled) => AnsiColor::Yellow.on_default(),
        _ => Style::new(),
    }
}

/// What the cluster says is not trusted to steer this terminal.
pub fn printable(cell: &str) -> String {
    cell.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// A number of seconds as kubectl says it: 59s, 2m5s, 45m, 3h12m, 26h, 4d.
pub fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let with = |whole: String, rest: i64, unit: char| {
        if rest == 0 {
            whole
        } else {
            format!("{whole}{rest}{unit}")
        }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => with(format!("{minutes}m"), seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with(format!("{hours}h"), minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(name: &str, phase: &str) -> Row {
        let vmi = serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": { "name": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "domain": { "devices": {} } },
            "status": { "phase": phase, "nodeName": "n1", "conditions": [{ "type": "Ready", "status": "True" }] },
        }));
        Row::new(
            &vmi.expect("a VMI"),
            "2026-01-01T00:01:05Z".parse().expect("a time"),
        )
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_stand_under_each_other_also_in_lines_that_come_later() {
        let mut table = Table::new(false);
        let first = plain(&table.lines(&[row("a-long-name", "Running")]));
        assert_eq!(
            first,
            "NAME          AGE   PHASE     IP   NODENAME   READY\n\
             a-long-name   65s   Running        n1         True"
        );
        assert_eq!(
            plain(&table.lines(&[row("b", "Failed")])),
            "b             65s   Failed         n1         True"
        );
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let line = Table::new(true).lines(&[row("a\u{1b}[2J", "Running\n")]);
        assert!(plain(&line).contains("a?[2J"), "{line}");
        assert_eq!(line.lines().count(), 2);
    }

    #[test]
    fn ages_are_said_as_kubectl_says_them() {
        let ages = [
            -5, 59, 119, 120, 125, 600, 10_799, 10_800, 11_520, 28_800, 172_800,
        ]
        .map(age);
        assert_eq!(
            ages,
            [
                "0s", "59s", "119s", "2m", "2m5s", "10m", "179m", "3h", "3h12m", "8h", "2d"
            ]
        );
    }
}
