//! The arguments of `rvm logs`.

use clap::Args;

/// Arguments of `logs`.
#[derive(Debug, Args)]
#[command(after_help = "A machine keeps the last 256 KiB that its guest printed, for as long as it runs.")]
pub struct Logs {
    /// The machine
    #[arg(add = crate::completion::instances())]
    pub name: String,
    /// Go on with what is printed from now on, until the machine ends
    #[arg(short, long)]
    pub follow: bool,
    /// Of what was printed before, no more than the last lines
    #[arg(long, value_name = "LINES")]
    pub tail: Option<usize>,
}
