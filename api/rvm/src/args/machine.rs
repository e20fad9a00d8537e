//! The arguments of what is done with a machine: as virtctl has them.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Patience;
use crate::completion;

/// What is done with a machine besides its object.
#[derive(Debug, Subcommand)]
pub enum MachineVerb {
    /// Start a VirtualMachine
    Start(Start),
    /// End a VirtualMachine's instance and start another
    Restart(Restart),
    /// Have a machine stand still
    Pause(Pause),
    /// Have a machine go on
    Unpause(Pause),
    /// Have a guest boot again, as its own command does it
    SoftReboot(Instance),
    /// Have a machine boot again at once
    Reset(Instance),
    /// Have all that a guest has written be on its disks, and nothing written any more
    Freeze(Freeze),
    /// Have a frozen guest write again
    Unfreeze(Instance),
    /// Print what a guest's agent tells of its system
    Guestosinfo(Instance),
    /// Print who is logged in to a guest
    Userlist(Instance),
    /// Print a guest's file systems
    Fslist(Instance),
    /// Show a machine's display
    Vnc(Box<Vnc>),
    /// Plug a volume into a machine, while it runs, too
    #[command(name = "addvolume")]
    AddVolume(AddVolume),
    /// Pull a volume out of a machine
    #[command(name = "removevolume")]
    RemoveVolume(RemoveVolume),
    /// Print a VirtualMachine with all that its spec takes from elsewhere
    Expand(Expand),
}

/// Arguments of `start`.
#[derive(Debug, Args)]
pub struct Start {
    /// The VirtualMachine
    #[arg(value_name = "VM", add = completion::machines())]
    pub name: String,
    /// Start it paused; `rvm unpause` has it go on
    #[arg(long)]
    pub paused: bool,
    /// Return when the machine runs
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub rehearsal: Rehearsal,
    #[command(flatten)]
    pub patience: Patience,
}

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub struct Restart {
    /// The VirtualMachine
    #[arg(value_name = "VM", add = completion::machines())]
    pub name: String,
    #[command(flatten)]
    pub force: Force,
    #[command(flatten)]
    pub rehearsal: Rehearsal,
}

/// Arguments of `pause` and `unpause`.
#[derive(Debug, Args)]
pub struct Pause {
    /// What NAME is: vm or vmi
    #[arg(value_name = "KIND")]
    pub kind: PauseKind,
    /// The machine
    #[arg(value_name = "NAME", add = completion::of_that_kind())]
    pub name: String,
    #[command(flatten)]
    pub rehearsal: Rehearsal,
}

/// What is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PauseKind {
    /// A VirtualMachine
    #[value(aliases = ["vms", "virtualmachine", "virtualmachines"])]
    Vm,
    /// A VirtualMachineInstance
    #[value(aliases = ["vmis", "virtualmachineinstance", "virtualmachineinstances"])]
    Vmi,
}

/// An instance.
#[derive(Debug, Args)]
pub struct Instance {
    /// The VirtualMachineInstance
    #[arg(value_name = "VMI", add = completion::instances())]
    pub name: String,
}

/// Arguments of `freeze`.
#[derive(Debug, Args)]
pub struct Freeze {
    /// The VirtualMachineInstance
    #[arg(value_name = "VMI", add = completion::instances())]
    pub name: String,
    /// After which time it is thawed in any case: 90s, 5m; 0 is never
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = super::duration)]
    pub unfreeze_timeout: std::time::Duration,
}

/// Arguments of `expand`.
#[derive(Debug, Args)]
pub struct Expand {
    /// A VirtualMachine of the cluster
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "file",
        conflicts_with = "file",
        add = completion::machines()
    )]
    pub vm: Option<String>,
    /// A file with a VirtualMachine
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The form of the output
    #[arg(short, long, value_name = "FORM", default_value = "yaml")]
    pub output: Document,
}

/// Arguments of `vnc`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    after_help = "rvm's machines have no display: each is refused as KubeVirt refuses one without."
)]
pub struct Vnc {
    /// The VirtualMachineInstance
    #[arg(value_name = "VMI", required = true, add = completion::instances())]
    pub name: Option<String>,
    #[command(flatten)]
    _viewer: Viewer,
    #[command(subcommand)]
    pub verb: Option<VncVerb>,
}

/// What is done with a display besides looking at it.
#[derive(Debug, Subcommand)]
pub enum VncVerb {
    /// Print what a display shows
    Screenshot(Screenshot),
}

/// How a display is looked at, as virtctl is told.
#[derive(Debug, Args)]
pub struct Viewer {
    /// Run no viewer; print the local port
    #[arg(long)]
    proxy_only: bool,
    /// The local port
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// The local address
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    address: String,
    /// Which viewer: tiger, chicken, real, remote-viewer, other
    #[arg(long, value_name = "KIND")]
    vnc_type: Option<String>,
    /// The viewer's program
    #[arg(long, value_name = "FILE")]
    vnc_path: Option<PathBuf>,
    /// Take it from nobody
    #[arg(long)]
    preserve_session: bool,
}

/// Arguments of `vnc screenshot`.
#[derive(Debug, Args)]
pub struct Screenshot {
    /// The VirtualMachineInstance
    #[arg(value_name = "VMI", add = completion::instances())]
    pub name: String,
    /// Where to write it; - is standard output
    #[arg(short, long, value_name = "FILE")]
    _file: Option<PathBuf>,
    /// Move the cursor first, so that the guest shows its screen
    #[arg(long)]
    pub move_cursor: bool,
}

/// Arguments of `addvolume`.
#[derive(Debug, Args)]
pub struct AddVolume {
    /// The VirtualMachine or VirtualMachineInstance
    #[arg(value_name = "VMI", add = completion::machines_and_instances())]
    pub name: String,
    /// The PersistentVolumeClaim
    #[arg(long, value_name = "NAME")]
    pub volume_name: String,
    /// The disk's name in the machine [default: the claim's]
    #[arg(long, value_name = "NAME")]
    pub disk_name: Option<String>,
    /// The disk's serial number [default: its name]
    #[arg(long, value_name = "TEXT")]
    pub serial: Option<String>,
    /// How it is cached
    #[arg(long, value_name = "MODE", value_parser = ["none", "writethrough", "writeback"])]
    pub cache: Option<String>,
    /// What it is to the guest; there are disks alone
    #[arg(long, value_name = "TYPE", default_value = "disk", value_parser = ["disk", "lun"])]
    pub disk_type: String,
    /// By which bus; virtio means scsi, of which a guest that runs is told
    #[arg(long, value_name = "BUS", default_value = "scsi", value_parser = ["virtio", "scsi"])]
    pub bus: String,
    /// No effect: a VirtualMachine keeps it in any case
    #[arg(long, hide = true)]
    _persist: bool,
    #[command(flatten)]
    pub rehearsal: Rehearsal,
}

/// Arguments of `removevolume`.
#[derive(Debug, Args)]
pub struct RemoveVolume {
    /// The VirtualMachine or VirtualMachineInstance
    #[arg(value_name = "VMI", add = completion::machines_and_instances())]
    pub name: String,
    /// The disk's name in the machine, or its claim's
    #[arg(long, value_name = "NAME")]
    pub volume_name: String,
    /// From the VirtualMachine, too: otherwise it comes again after a restart
    #[arg(long)]
    pub persist: bool,
    #[command(flatten)]
    pub rehearsal: Rehearsal,
}

/// Forms of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// YAML
    Yaml,
    /// JSON
    Json,
}

/// An end that does not wait.
#[derive(Debug, Args)]
pub struct Force {
    /// Do not wait for the guest; needs --grace-period, too
    #[arg(long, value_name = "BOOL", default_value_t = false, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub force: bool,
    /// How many seconds the guest may take to shut down
    #[arg(long, value_name = "SECONDS")]
    pub grace_period: Option<u32>,
}

/// Whether it is only tried.
#[derive(Debug, Args)]
pub struct Rehearsal {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}
