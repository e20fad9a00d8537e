//! The arguments, as they are typed. Help, usage errors and completions all come from here.

mod create;
mod credentials;
mod events;
mod expose;
mod images;
mod logs;
mod machine;
mod ports;
mod refused;
mod top;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use create::{CloudInit, Create, CreateVm, Created};
pub use credentials::{AddSshKey, Credentials, CredentialsVerb, Key, RemoveSshKey, SetPassword, Whose};
pub use events::{Events, EventsOutput};
pub use expose::Expose;
pub use images::{Images, ImagesOutput, ImagesVerb};
pub use logs::Logs;
pub use machine::{
    AddVolume, Document, Expand, Force, Freeze, Instance, MachineVerb, Pause, PauseKind, Rehearsal,
    RemoveVolume, Restart, Start, Vnc, VncVerb,
};
pub use ports::{Forward, Forwarded, PortForward, Scp, Ssh, SshOptions, Target};
pub use refused::RefusedVerb;
pub use top::{Top, TopOrder, TopOutput};

use crate::completion;

/// Virtual machines for RISC-V: from a manifest to a console.
#[derive(Debug, Parser)]
#[command(name = "rvm", version, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Where the API is, and which namespace is meant.
#[derive(Debug, Default, Args)]
pub struct Global {
    /// The rvm.v1 API: unix:///path, or https://host:port [default: this machine's rvm-handler --local]
    #[arg(
        long,
        env = "RVM_SERVER",
        value_name = "URL",
        global = true,
        hide_env_values = true
    )]
    pub server: Option<String>,
    /// Who signed the server's certificate (PEM file)
    #[arg(
        long,
        env = "RVM_CA",
        value_name = "FILE",
        global = true,
        hide_env_values = true
    )]
    pub ca: Option<PathBuf>,
    /// Your certificate (PEM file)
    #[arg(
        long,
        env = "RVM_CERT",
        value_name = "FILE",
        requires = "key",
        global = true,
        hide_env_values = true
    )]
    pub cert: Option<PathBuf>,
    /// Your certificate's key (PEM file)
    #[arg(
        long,
        env = "RVM_KEY",
        value_name = "FILE",
        requires = "cert",
        global = true,
        hide_env_values = true
    )]
    pub key: Option<PathBuf>,
    /// Your bearer token (a file), where the server is a cluster's rvm-api
    #[arg(
        long,
        env = "RVM_TOKEN_FILE",
        value_name = "FILE",
        global = true,
        hide_env_values = true
    )]
    pub token_file: Option<PathBuf>,
    /// The Kubernetes API's kubeconfig [default: $KUBECONFIG, local mode's, ~/.kube/config]
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Which of the kubeconfig's contexts [default: its current one]
    #[arg(long, value_name = "NAME", global = true, add = completion::contexts())]
    pub context: Option<String>,
    /// The namespace [default: default]
    #[arg(short, long, value_name = "NAME", global = true, add = completion::namespaces())]
    pub namespace: Option<String>,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create or change machines as a manifest says
    Apply(Apply),
    /// Show machines
    Get(Get),
    /// Attach to a machine's serial console
    Console(Console),
    /// Print what a machine's guest has printed
    Logs(Logs),
    /// Forward local ports to a machine's guest
    PortForward(PortForward),
    /// Log in to a machine's guest by this system's ssh
    Ssh(Ssh),
    /// Copy files to or from a machine's guest by this system's scp
    Scp(Scp),
    /// End a machine and keep its object
    Stop(Stop),
    #[command(flatten)]
    Machine(MachineVerb),
    /// End machines and take their objects away
    Delete(Delete),
    /// Show what machines take of their nodes
    Top(Top),
    /// Show what was recorded about machines
    Events(Events),
    /// Print manifests
    Create(Create),
    /// Let keys in, and set passwords
    Credentials(Credentials),
    /// Make a Service that leads to a machine
    Expose(Box<Expose>),
    /// Print which devices of nodes guests may have
    PermittedDevices,
    /// Show, fetch and remove the images of registries that a node keeps
    Images(Images),
    /// Print the versions of this program and of the server
    Version(Version),
    #[command(flatten)]
    Refused(RefusedVerb),
    /// Print the path of local mode's kubeconfig
    Kubeconfig,
    /// Print the address of local mode's web console, with the token that lets its reader in
    Web,
    /// Print the completions of a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The manifest; - is standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Return when the machines run
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub patience: Patience,
}

/// Arguments of `get`.
#[derive(Debug, Args)]
pub struct Get {
    /// [KIND] [NAME]: one object, or all of the namespace; KIND is vmi (which is meant where none is said), vm, vmirs or kv
    #[arg(value_name = "NAME", num_args = 0..=2, add = completion::objects())]
    pub what: Vec<String>,
    /// Those with these labels: a=b,c!=d,e
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// The machines of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub output: Output,
    /// Go on and show each change
    #[arg(short, long)]
    pub watch: bool,
}

/// Arguments of `console`.
#[derive(Debug, Args)]
#[command(
    after_help = "What was printed before comes first. Ctrl+] or Ctrl+5 detaches; the machine goes on."
)]
pub struct Console {
    /// The machine
    #[arg(add = completion::instances())]
    pub name: String,
    /// Only look: nothing that is typed reaches the machine
    #[arg(long)]
    pub read_only: bool,
    /// Print until this text appears, then exit
    #[arg(long, value_name = "TEXT")]
    pub until: Option<String>,
    /// How long to wait: 90s, 5m, 1h, or a number of minutes; 0 does not wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = minutes)]
    pub timeout: Duration,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
#[command(
    after_help = "NAME is a VirtualMachine where there is one, else a VirtualMachineInstance, as vmi/NAME is."
)]
pub struct Stop {
    /// The machine
    #[arg(add = completion::machines_and_instances())]
    pub name: String,
    #[command(flatten)]
    pub force: Force,
    #[command(flatten)]
    pub rehearsal: Rehearsal,
    /// Return when the VirtualMachineInstance has ended
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub wait: bool,
    #[command(flatten)]
    pub patience: Patience,
}

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// The machines
    #[arg(
        value_name = "NAME",
        required_unless_present = "files",
        conflicts_with = "files",
        add = completion::instances()
    )]
    pub names: Vec<String>,
    /// The machines of this manifest; - is standard input
    #[arg(short, long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Return when the machines are gone
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub wait: bool,
    /// A machine that is not there is no error
    #[arg(long)]
    pub ignore_not_found: bool,
    #[command(flatten)]
    pub patience: Patience,
}

/// Arguments of `version`.
#[derive(Debug, Args)]
pub struct Version {
    /// Ask no server
    #[arg(short, long)]
    pub client: bool,
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: VersionOutput,
}

/// How long is waited.
#[derive(Debug, Args)]
pub struct Patience {
    /// How long to wait: 90s, 5m, 1h; 0 does not wait
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub timeout: Duration,
}

/// Forms of `get`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line per machine
    Table,
    /// A line with more columns
    Wide,
    /// The objects as JSON
    Json,
    /// The objects as YAML
    Yaml,
    /// The objects' names
    Name,
}

/// Forms of `version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VersionOutput {
    /// Lines for people
    Text,
    /// One JSON object
    Json,
}

/// The name by which kubectl calls a program of this name, if it does.
fn plugin(argv0: Option<OsString>) -> Option<&'static str> {
    let argv0 = argv0.unwrap_or_default();
    match Path::new(&argv0).file_stem().and_then(|name| name.to_str()) {
        Some("kubectl-rvm" | "kubectl_complete-rvm") => Some("kubectl rvm"),
        Some("kubectl-virt" | "kubectl_complete-virt") => Some("kubectl virt"),
        _ => None,
    }
}

/// Whether kubectl calls us.
pub fn is_plugin() -> bool {
    plugin(std::env::args_os().next()).is_some()
}

/// The command under the name that it was called by: kubectl finds its plugins by theirs, and calls them without
/// saying so.
pub fn called_as(command: clap::Command, argv0: Option<OsString>) -> clap::Command {
    match plugin(argv0) {
        Some(name) => command.name(name).bin_name(name),
        None => command,
    }
}

/// `90s`, `5m`, `1h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("not a duration such as 90s, 5m or 1h".to_owned()),
    };
    let count: u32 = digits
        .parse()
        .map_err(|_| "not a duration such as 90s, 5m or 1h".to_owned())?;
    Ok(Duration::from_secs(u64::from(count) * unit))
}

/// The same, but a bare number is minutes: virtctl's console counts so.
fn minutes(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return duration(&format!("{text}m"));
    }
    duration(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_with_and_without_a_unit() {
        assert_eq!(
            ["90s", "5m", "1h", "7", "0"].map(|text| duration(text).unwrap().as_secs()),
            [90, 300, 3600, 7, 0]
        );
        assert!(
            ["", "m", "5d", "1.5s", "-1", "99999999999"]
                .iter()
                .all(|text| duration(text).is_err())
        );
    }

    #[test]
    fn a_console_waits_for_minutes_where_no_unit_is_said() {
        let seconds = ["1", "0", "90s", "2m"].map(|text| minutes(text).unwrap().as_secs());
        assert_eq!(seconds, [60, 0, 90, 120]);
        assert!(minutes("").is_err() && minutes("99999999999").is_err());
    }

    #[test]
    fn a_plugin_says_how_it_was_called() {
        let usage = |argv0: &str| {
            called_as(Cli::command(), Some(argv0.into()))
                .render_usage()
                .to_string()
        };
        assert!(usage("/usr/bin/kubectl-rvm").contains("kubectl rvm "));
        assert!(usage("kubectl-virt").contains("kubectl virt "));
        assert!(usage("./rvm").contains("Usage: rvm "));
    }
}
