//! The tables of objects: kubectl's columns, widths that fit what is known when a line is printed.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use rvm_types::VirtualMachineInstance;
use rvm_types::condition::find;
use rvm_types::names::conditions::{LIVE_MIGRATABLE, PAUSED, READY};

const COLUMNS: [&str; 9] = [
    "NAMESPACE",
    "NAME",
    "AGE",
    "PHASE",
    "IP",
    "NODENAME",
    "READY",
    "LIVE-MIGRATABLE",
    "PAUSED",
];
/// How many columns are shown to everybody.
const NARROW: usize = 7;
/// The columns whose words have a colour.
const COLOURED: [&str; 2] = ["PHASE", "STATUS"];
/// Between two columns.
const GAP: usize = 3;

/// Which columns of a machine are shown.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    /// Where it is.
    pub namespaces: bool,
    /// All that there is.
    pub wide: bool,
}

/// A line of a table, cell by cell.
pub type Row = Vec<String>;

/// A table that remembers its widths, so that lines that come later stand under those before.
pub struct Table {
    header: Row,
    widths: Vec<usize>,
    has_header: bool,
}

// === impl Columns ===

impl Columns {
    /// The names over them.
    pub fn header(self) -> Row {
        self.chosen(COLUMNS.map(str::to_owned))
    }

    /// A machine as it is at this time.
    pub fn row(self, vmi: &VirtualMachineInstance, now: Timestamp) -> Row {
        let metadata = &vmi.metadata;
        let status = vmi.status.clone().unwrap_or_default();
        let created = metadata.creation_timestamp.as_ref();
        let interface = status.interfaces.first();
        let condition = |name| find(&status.conditions, name).map(|condition| condition.status.clone());
        let cells = [
            metadata.namespace.clone(),
            metadata.name.clone(),
            Some(created.map_or_else(
                || "<unknown>".to_owned(),
                |created| age(now.as_second() - created.0.as_second()),
            )),
            status.phase.clone().map(String::from),
            interface.and_then(|interface| interface.ip_address.clone()),
            status.node_name.clone(),
            condition(READY),
            condition(LIVE_MIGRATABLE),
            condition(PAUSED),
        ];
        self.chosen(cells.map(Option::unwrap_or_default))
    }

    fn chosen(self, cells: [String; COLUMNS.len()]) -> Row {
        let last = if self.wide { COLUMNS.len() } else { NARROW };
        let first = usize::from(!self.namespaces);
        cells.into_iter().take(last).skip(first).collect()
    }
}

// === impl Table ===

impl Table {
    /// A table under this header.
    pub fn new(header: Row) -> Self {
        Self {
            widths: header.iter().map(|name| name.chars().count()).collect(),
            header,
            has_header: false,
        }
    }

    /// These lines, under the header if they are the first. What the cells hold is not trusted to steer this terminal.
    pub fn lines(&mut self, rows: Vec<Row>) -> String {
        let clean = |row: Row| row.iter().map(|cell| printable(cell)).collect();
        let rows: Vec<Row> = rows.into_iter().map(clean).collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        if !std::mem::replace(&mut self.has_header, true) {
            self.line(&self.header, &mut text);
        }
        rows.iter().for_each(|row| self.line(row, &mut text));
        text.trim_end().to_owned()
    }

    fn line(&self, row: &Row, text: &mut String) {
        for ((cell, width), name) in row.iter().zip(&self.widths).zip(&self.header) {
            let style = if COLOURED.contains(&name.as_str()) {
                style(cell)
            } else {
                Style::new()
            };
            let room = (width + GAP).saturating_sub(cell.chars().count());
            // Writing to a string does not fail.
            let _ = write!(text, "{style}{cell}{style:#}{:room$}", "");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
}

fn style(state: &str) -> Style {
    match state {
        "Running" => AnsiColor::Green.on_default(),
        "Failed" | "Unknown" | "CrashLoopBackOff" => AnsiColor::Red.on_default(),
        "Pending" | "Scheduling" | "Scheduled" | "Provisioning" | "Starting" | "Stopping" => {
            AnsiColor::Yellow.on_default()
        }
        _ if state.starts_with("Err") => AnsiColor::Red.on_default(),
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

    const NARROW: Columns = Columns {
        namespaces: false,
        wide: false,
    };

    fn row(name: &str, phase: &str) -> Row {
        let vmi = serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": { "name": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "domain": { "devices": {} } },
            "status": { "phase": phase, "nodeName": "n1", "conditions": [{ "type": "Ready", "status": "True" }] },
        }));
        let now = "2026-01-01T00:01:05Z".parse().expect("a time");
        NARROW.row(&vmi.expect("a VMI"), now)
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_stand_under_each_other_also_in_lines_that_come_later() {
        let mut table = Table::new(NARROW.header());
        let first = plain(&table.lines(vec![row("a-long-name", "Running")]));
        assert_eq!(
            first,
            "NAME          AGE   PHASE     IP   NODENAME   READY\n\
             a-long-name   65s   Running        n1         True"
        );
        assert_eq!(
            plain(&table.lines(vec![row("b", "Failed")])),
            "b             65s   Failed         n1         True"
        );
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let line = Table::new(NARROW.header()).lines(vec![row("a\u{1b}[2J", "Running\n")]);
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
