//! What people see: tables, ages, the one line of an error.

mod bar;
mod columns;
mod table;

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use tonic::{Code, Status};

pub use bar::Bar;
pub use columns::{columns, size};
pub use table::{Columns, Row, Table, age, printable};

/// The word before an error.
const ERROR: Style = AnsiColor::Red.on_default().bold();

/// An error in one line: `error: …`, with its causes.
pub fn error_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause
            .downcast_ref::<Status>()
            .map_or_else(|| cause.to_string(), status_line);
        // Some libraries say their cause in their own words and then once more.
        if !text.contains(&cause) {
            text = if text.is_empty() {
                cause
            } else {
                format!("{text}: {cause}")
            };
        }
    }
    let line = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    format!("{ERROR}error:{ERROR:#} {line}")
}

/// What is wrong with a command line, in one line; clap has several, and names the command in its usage.
pub fn usage_line(wrong: &str, program: &str) -> String {
    let mut lines = wrong.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().trim_start_matches("error: ");
    // A list of what is missing stands below its heading.
    let missing: Vec<&str> = lines.take_while(|line| line.starts_with(['-', '<'])).collect();
    let usage = wrong.lines().find_map(|line| line.trim().strip_prefix("Usage: "));
    let words = usage.into_iter().flat_map(str::split_whitespace);
    let command: Vec<&str> = words
        .take_while(|word| !word.starts_with(['-', '<', '[']))
        .collect();
    let command = if command.is_empty() {
        program.to_owned()
    } else {
        command.join(" ")
    };
    let missing = if missing.is_empty() {
        String::new()
    } else {
        format!(" {}", missing.join(", "))
    };
    format!("{first}{missing}; see {command} --help")
}

/// A status in the words of the server; its code where it has none.
fn status_line(status: &Status) -> String {
    match (status.message(), status.code()) {
        ("", code) => code.description().to_owned(),
        (message, Code::Unimplemented) => format!("the server does not know this call: {message}"),
        (message, _) => message.to_owned(),
    }
}

/// A line on standard output; unlike `println!`, it does not panic when nobody reads it.
pub fn say(line: &str) -> io::Result<()> {
    writeln!(anstream::stdout(), "{line}")
}

/// A line of progress on standard error.
pub fn progress(line: &str) {
    // Progress that nobody sees is no reason to stop.
    let _ = writeln!(anstream::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    fn plain(error: &anyhow::Error) -> String {
        anstream::adapter::strip_str(&error_line(error)).to_string()
    }

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        let error = Err::<(), _>(anyhow!("inner\n\n  more"))
            .context("outer")
            .unwrap_err();
        assert_eq!(plain(&error), "error: outer: inner; more");
    }

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let error = Err::<(), _>(anyhow!("refused"))
            .context("cannot connect: refused")
            .unwrap_err();
        assert_eq!(plain(&error), "error: cannot connect: refused");
    }

    #[test]
    fn the_servers_own_words_are_enough() {
        assert_eq!(
            plain(&Status::not_found("no such machine").into()),
            "error: no such machine"
        );
    }
}
