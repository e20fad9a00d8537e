//! The arguments of `rvm events`.

use clap::{Args, ValueEnum};

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Of one machine alone
    #[arg(value_name = "NAME", add = crate::completion::machines_and_instances())]
    pub name: Option<String>,
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub output: EventsOutput,
}

/// Forms of `events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EventsOutput {
    /// A line per event
    Table,
    /// One JSON array
    Json,
}
