//! The commands of virtctl that rvm does not have. They are there so that who knows them learns why they do nothing, and what does.

use clap::{Args, Subcommand};

/// One of them.
#[derive(Debug, Subcommand)]
pub enum RefusedVerb {
    /// Not there: redirect a USB device
    #[command(hide = true)]
    Usbredir(Anything),
    /// Not there: write a machine's memory to a volume
    #[command(hide = true)]
    MemoryDump(Anything),
    /// Not there: look into a volume's file system
    #[command(hide = true)]
    Guestfs(Anything),
    /// Not there: set how much KubeVirt's parts log
    #[command(hide = true)]
    Adm(Anything),
    /// Not there: upload a disk's image into a volume
    #[command(hide = true)]
    ImageUpload(Anything),
    /// Not there: export a machine's volumes
    #[command(hide = true)]
    Vmexport(Anything),
    /// Not there: have a machine go on at another node
    #[command(hide = true)]
    Migrate(Anything),
    /// Not there: have a machine stay
    #[command(hide = true)]
    MigrateCancel(Anything),
    /// Not there: have a machine stay at a node that is emptied
    #[command(hide = true)]
    EvacuateCancel(Anything),
    /// Not there: print which objects a machine is made of
    #[command(hide = true)]
    Objectgraph(Anything),
    /// Not there: make machines of templates
    #[command(hide = true)]
    Template(Anything),
}

/// Whatever follows.
#[derive(Debug, Args)]
pub struct Anything {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<std::ffi::OsString>,
}
