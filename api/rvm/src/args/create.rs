//! The arguments of `rvm create`: as virtctl has them, but for what rvm has not.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::refused::Anything;

/// Arguments of `create`.
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub struct Create {
    #[command(subcommand)]
    pub what: Created,
}

/// What can be written.
#[derive(Debug, Subcommand)]
pub enum Created {
    /// Print the manifest of a VirtualMachine
    Vm(Box<CreateVm>),
    /// Not there: print an instance type
    #[command(hide = true)]
    Instancetype(Anything),
    /// Not there: print a preference
    #[command(hide = true)]
    Preference(Anything),
    /// Not there: print a clone
    #[command(hide = true)]
    Clone(Anything),
}

/// Arguments of `create vm`.
#[derive(Debug, Args)]
#[command(
    after_help = "A volume's parameters are src:SOURCE, name:NAME and bootorder:N, with commas between them. No server is asked; \
    `rvm create vm … | rvm apply -f -` makes it."
)]
pub struct CreateVm {
    /// Its name [default: vm- and five letters]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// When it runs: Always, Manual, Halted, Once, RerunOnFailure
    #[arg(long, value_name = "STRATEGY", default_value = "Always")]
    pub run_strategy: String,
    /// How many seconds its guest may take to shut down
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    pub termination_grace_period: u32,
    /// Its memory
    #[arg(long, value_name = "SIZE", default_value = "512Mi")]
    pub memory: String,
    /// A disk out of an image of a registry; as often as there are
    #[arg(long, value_name = "PARAMETERS")]
    pub volume_containerdisk: Vec<String>,
    /// A PersistentVolumeClaim; as often as there are
    #[arg(long, value_name = "PARAMETERS")]
    pub volume_pvc: Vec<String>,
    /// How cloud-init's data reach the guest; none leaves them away
    #[arg(long, value_name = "SOURCE", default_value = "noCloud")]
    pub cloud_init: CloudInit,
    /// cloud-init's user data, in base64
    #[arg(long, value_name = "BASE64", conflicts_with_all = ["user", "ssh_key", "password_file"])]
    pub cloud_init_user_data: Option<String>,
    /// cloud-init's network data, in base64
    #[arg(long, value_name = "BASE64")]
    pub cloud_init_network_data: Option<String>,
    /// Who cloud-init makes, or sets up
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// The file of that user's password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// A public key of that user's; as often as there are
    #[arg(long, value_name = "KEY")]
    pub ssh_key: Vec<String>,
    /// Not there: rvm has no instance types
    #[arg(long, hide = true, num_args = 0..=1)]
    pub instancetype: Option<Option<String>>,
    /// Not there: rvm has no preferences
    #[arg(long, hide = true, num_args = 0..=1)]
    pub preference: Option<Option<String>>,
}

/// Where cloud-init looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CloudInit {
    /// A disk named cidata
    #[value(name = "noCloud", alias = "nocloud")]
    NoCloud,
    /// A disk named config-2
    #[value(name = "configDrive", alias = "configdrive")]
    ConfigDrive,
    /// Nowhere
    #[value(name = "none")]
    None,
}
