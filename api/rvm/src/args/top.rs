//! The arguments of `rvm top`.

use clap::{Args, ValueEnum};

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(
    after_help = "What all processes of a machine take, over one second; the percentages are of what its guest has. QEMU takes memory of its own, so \
    that there may be more than 100 %."
)]
pub struct Top {
    /// One machine alone
    #[arg(value_name = "NAME", add = crate::completion::instances())]
    pub name: Option<String>,
    /// The machines of all namespaces
    #[arg(short = 'A', long, conflicts_with = "name")]
    pub all_namespaces: bool,
    /// What comes first
    #[arg(long, value_name = "COLUMN", default_value = "name")]
    pub sort_by: TopOrder,
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub output: TopOutput,
}

/// Orders of `top`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TopOrder {
    /// Namespace and name
    Name,
    /// Who takes most of the processors
    Cpu,
    /// Who takes most memory
    Memory,
}

/// Forms of `top`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TopOutput {
    /// A line per machine
    Table,
    /// One JSON array
    Json,
}
