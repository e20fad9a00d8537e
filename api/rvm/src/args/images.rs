//! The arguments of `rvm images`.

use clap::{Args, Subcommand, ValueEnum};

/// Arguments of `images`.
#[derive(Debug, Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "Each node keeps its own images; these are those of the node that --server names."
)]
pub struct Images {
    #[command(subcommand)]
    pub verb: ImagesVerb,
}

/// What is to be done with images.
#[derive(Debug, Subcommand)]
pub enum ImagesVerb {
    /// Show what is kept, how large it is, and which machines use it
    #[command(visible_alias = "ls")]
    List {
        /// The form of the output
        #[arg(short, long, value_name = "FORM", default_value = "table")]
        output: ImagesOutput,
    },
    /// Fetch images before a machine wants them, with the node's own logins
    Pull(ImageNames),
    /// Remove images that no machine uses
    #[command(visible_alias = "rm")]
    Remove(KeptImages),
    /// Remove all images that no machine uses
    #[command(visible_alias = "gc")]
    Prune,
}

/// Which images.
#[derive(Debug, Args)]
pub struct ImageNames {
    /// The images, as manifests name them
    #[arg(value_name = "IMAGE", required = true)]
    pub names: Vec<String>,
}

/// Which images that are here.
#[derive(Debug, Args)]
pub struct KeptImages {
    /// The images, as manifests name them
    #[arg(value_name = "IMAGE", required = true, add = crate::completion::images())]
    pub names: Vec<String>,
}

/// Forms of `images list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImagesOutput {
    /// A line per image
    Table,
    /// One JSON array
    Json,
    /// The images' names
    Name,
}
