//! The arguments of `rvm credentials`: as virtctl has them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::completion;

/// Arguments of `credentials`.
#[derive(Debug, Args)]
#[command(
    disable_help_subcommand = true,
    after_help = "They are kept in Secrets that a VirtualMachine names as its accessCredentials; the guest's agent sets them, at the latest a minute \
    after they were changed."
)]
pub struct Credentials {
    #[command(subcommand)]
    pub verb: CredentialsVerb,
}

/// What is done with credentials.
#[derive(Debug, Subcommand)]
pub enum CredentialsVerb {
    /// Let a key in
    AddSshKey(AddSshKey),
    /// Let a key in no more
    RemoveSshKey(RemoveSshKey),
    /// Set a user's password
    SetPassword(SetPassword),
}

/// Whose credentials, and where they are kept.
#[derive(Debug, Args)]
pub struct Whose {
    /// The VirtualMachine
    #[arg(value_name = "VM", add = completion::machines())]
    pub name: String,
    /// The guest's user
    #[arg(short, long, value_name = "NAME")]
    pub user: String,
    /// The Secret, where the machine names several
    #[arg(long, value_name = "NAME")]
    pub secret: Option<String>,
    /// Also a Secret that is not this machine's alone, or for a machine that runs
    #[arg(long)]
    pub force: bool,
}

/// A public key.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Key {
    /// The file of the public key
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The public key itself
    #[arg(long, value_name = "KEY")]
    pub value: Option<String>,
}

/// Arguments of `credentials add-ssh-key`.
#[derive(Debug, Args)]
pub struct AddSshKey {
    #[command(flatten)]
    pub whose: Whose,
    #[command(flatten)]
    pub key: Key,
    /// Into a Secret of its own, which a machine that runs has after a restart
    #[arg(long, conflicts_with = "update_secret")]
    pub create_secret: bool,
    /// Into a Secret that is there
    #[arg(long)]
    pub update_secret: bool,
}

/// Arguments of `credentials remove-ssh-key`.
#[derive(Debug, Args)]
pub struct RemoveSshKey {
    #[command(flatten)]
    pub whose: Whose,
    #[command(flatten)]
    pub key: Key,
}

/// Arguments of `credentials set-password`.
#[derive(Debug, Args)]
pub struct SetPassword {
    #[command(flatten)]
    pub whose: Whose,
    /// The password
    #[arg(short, long, value_name = "TEXT")]
    pub password: String,
}
