//! `rvmm ctl`: asks a running machine, over its control socket.
//!
//! A word a request; with `-o json` the answer as it came, an event a line. Status 0 when it was done, 1 with one line
//! when it was refused or nobody answered; a command that ran in the guest ends us with its own status.

mod exec;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use rvmm_backends::disk::hand_over;
use rvmm_backends::net::Tap;
use rvmm_control::{
    Client, Device, EndReason, Ending, Event, How, Info, Request, RunDir, Stats, Stopped, WatchdogAction,
};
use rvmm_spec::wire::{DiskDocument, NetDocument};
use rvmm_spec::{MemorySize, Network};
use serde::Serialize;
use serde_json::Value;

use crate::args;

const ASK: &str = "\
The commands are those of QEMU's guest agent, as the guest's own has them; guest-info lists them. Our init knows guest-shutdown.
Example:
  rvmm ctl --run-dir DIR agent guest-file-open '{\"path\": \"/etc/hostname\"}'";

const EXEC: &str = "\
The guest has to run QEMU's guest agent, and that to allow guest-exec. A command whose time is over goes on in the guest.
Example:
  rvmm ctl --run-dir DIR exec -- cat /etc/hostname";

const FIND: &str = "\
The machine must have been started with --transport pci. Its guest finds the device when it looks at its bus again; in Linux:
  echo 1 >/sys/bus/pci/rescan
The device stays over a reset.";

const FIND_DISK: &str = "\
With bus=scsi the machine must have been started with --scsi. Its guest is told, and finds the disk by itself (/dev/sda).
Otherwise it must have been started with --transport pci. Its guest finds the disk when it looks at its bus again; in Linux:
  echo 1 >/sys/bus/pci/rescan
The disk stays over a reset.";

const LET_GO: &str = "\
The guest is told when a disk on bus scsi goes; who still has it open finds errors. Of any other device
have the guest let go first, or its driver waits for it for ever; in Linux, for /dev/vdb:
  echo 1 >$(readlink -f /sys/block/vdb/device/..)/remove";

/// Ask a running machine, by its run directory or its control socket
#[derive(Debug, Args)]
pub struct Ctl {
    /// The machine's run directory
    #[arg(long, value_name = "DIR", required_unless_present = "socket")]
    run_dir: Option<PathBuf>,
    /// The machine's control socket
    #[arg(long, value_name = "PATH", conflicts_with = "run_dir")]
    socket: Option<PathBuf>,
    /// How answers are written
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Format,
    #[command(subcommand)]
    word: Word,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Word {
    /// Who and how the machine is
    Info,
    /// What was counted since rvmm started
    Stats,
    /// A line for each thing that happens, until the machine is over
    Events,
    /// Stop the vCPUs where they are
    Pause,
    /// Let paused vCPUs go on
    Resume,
    /// Ask the guest to switch itself off, and cut its power if it does not in time
    Stop {
        /// How long the guest may take, such as 30s or 5m
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
        deadline: Duration,
    },
    /// Cut the machine's power
    Kill,
    /// Boot the guest again
    Reset,
    /// Leave the guest this much of its memory
    Balloon {
        /// Such as 256M
        size: MemorySize,
    },
    /// Ask the guest agent something, and print what it answers
    #[command(after_help = ASK)]
    Agent {
        /// A command of its protocol, such as guest-get-osinfo
        command: String,
        /// The command's arguments, as a JSON object
        #[arg(value_parser = parse_json)]
        arguments: Option<Value>,
    },
    /// Have the guest agent run a command in the guest; its output and its status are ours
    #[command(after_help = EXEC)]
    Exec {
        /// How long it may take, such as 30s or 5m
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
        timeout: Duration,
        /// The command, as a path or a name, and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Plug a disk in
    #[command(after_help = FIND_DISK)]
    AddDisk {
        /// An image file or a block device, with the options of --disk (see rvmm --help)
        #[arg(value_name = args::disk::VALUE)]
        disk: String,
        /// Its name from now on [default: disk and a number]
        #[arg(long)]
        id: Option<String>,
    },
    /// Plug a network interface in
    #[command(after_help = FIND)]
    AddNet {
        /// A tap that exists and that nobody uses, or a passt, with the options of --net (see rvmm --help)
        #[arg(value_name = "tap=NAME|passt=SOCKET[,OPTION...]")]
        net: String,
        /// Its name from now on [default: net and a number]
        #[arg(long)]
        id: Option<String>,
    },
    /// Pull out what was plugged in
    #[command(after_help = LET_GO)]
    RemoveDevice {
        /// As `info` names it
        id: String,
    },
}

// === impl Ctl ===

impl Ctl {
    /// Asks, and writes what came of it.
    ///
    /// # Errors
    /// Nobody answers, or the machine refuses.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let in_dir = || self.run_dir.map(|dir| RunDir::new(dir).control_socket());
        let socket = self.socket.or_else(in_dir).context("--run-dir is needed")?;
        let mut client = Client::connect(&socket).with_context(|| format!("'{}'", socket.display()))?;
        let json = self.output == Format::Json;
        let request = match self.word {
            Word::Info => return show(&client.info()?, json, info_text),
            Word::Stats => return show(&client.stats()?, json, stats_text),
            Word::Events => {
                for event in client.subscribe()? {
                    show(&event?, json, event_text)?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            Word::Stop { deadline } => {
                let seconds = u32::try_from(deadline.as_secs()).unwrap_or(u32::MAX);
                return show(&client.stop(seconds)?, json, stopped_text);
            }
            Word::Pause => Request::Pause,
            Word::Resume => Request::Resume,
            Word::Kill => Request::Kill,
            Word::Reset => Request::Reset,
            Word::Balloon { size } => Request::Balloon { bytes: size.bytes() },
            Word::Agent { command, arguments } => {
                let said = client.ask_agent(&command, arguments)?;
                return show(&said, json, ToString::to_string);
            }
            Word::AddDisk { disk, id } => return show(&add_disk(&mut client, &disk, id)?, json, device_text),
            Word::AddNet { net, id } => return show(&add_net(&mut client, &net, id)?, json, device_text),
            Word::RemoveDevice { id } => Request::RemoveDevice { id },
            Word::Exec { timeout, command } => {
                let ask = |word: &str, arguments| Ok(client.ask_agent(word, Some(arguments))?);
                let ended = exec::run(ask, &command, timeout)?;
                ended.write();
                return Ok(ExitCode::from(ended.status));
            }
        };
        client.perform(request)?;
        show(&"done", json, |_| String::new())
    }
}

/// Opens the image, as rvmm may have no right to, and sends it along.
fn add_disk(client: &mut Client, text: &str, id: Option<String>) -> anyhow::Result<Device> {
    let mut disk = args::disk::parse(text).with_context(|| format!("'{text}'"))?;
    disk.path = std::path::absolute(&disk.path)?;
    let file = hand_over(&disk)?;
    let disk = DiskDocument::from(&disk);
    Ok(client.plug(Request::AddDisk { id, disk }, &[file.as_fd()])?)
}

/// Attaches the tap and sends it along; to a passt, rvmm connects itself.
fn add_net(client: &mut Client, text: &str, id: Option<String>) -> anyhow::Result<Device> {
    let mut wish = args::net::parse(text).with_context(|| format!("'{text}'"))?;
    let queues = match &mut wish.network {
        Network::Tap(tap) => Tap::open(tap, wish.queues)?,
        Network::Passt(path) => {
            *path = std::path::absolute(&path)?;
            Vec::new()
        }
    };
    let queues: Vec<_> = queues.into_iter().map(Tap::into_file).collect();
    let opened: Vec<_> = queues.iter().map(AsFd::as_fd).collect();
    let net = NetDocument::from(&wish);
    Ok(client.plug(Request::AddNet { id, net }, &opened)?)
}

fn device_text(device: &Device) -> String {
    device.id.clone()
}

/// Writes an answer: as it came, or as text if there is any.
fn show<T: Serialize>(answer: &T, json: bool, text: impl FnOnce(&T) -> String) -> anyhow::Result<ExitCode> {
    let mut text = if json {
        serde_json::to_string(answer)?
    } else {
        text(answer)
    };
    if !text.is_empty() {
        text.push('\n');
    }
    // A reader that went away has seen enough.
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn info_text(info: &Info) -> String {
    let agent = if info.agent { "listens" } else { "none" };
    let mut lines = vec![
        format!("name         {}", info.name),
        format!("state        {}", info.state.name()),
        format!(
            "accelerator  {} ({})",
            name_of(&info.accelerator),
            info.accelerator_reason
        ),
        format!("uptime       {} s", info.uptime_seconds),
        format!("vCPUs        {}", info.cpus),
        format!("memory       {} MiB", info.memory_bytes >> 20),
        format!("resets       {}", info.resets),
        format!("guest agent  {agent}"),
        format!("process      {}", info.pid),
        format!("version      {}", info.version),
    ];
    let error = info.disk_error.iter();
    lines.extend(error.map(|error| format!("waits for    {}: {}", error.disk, error.message)));
    let devices = info.devices.iter();
    let note = |device: &Device| if device.plugged { " (plugged in)" } else { "" };
    lines.extend(devices.map(|device| format!("{:<12} {}{}", device.id, device.backend, note(device))));
    lines.join("\n")
}

fn stats_text(stats: &Stats) -> String {
    let lines = stats.counters.iter().chain(&stats.gauges);
    let lines: Vec<_> = lines.map(|(name, count)| format!("{name:<22} {count}")).collect();
    lines.join("\n")
}

fn stopped_text(stopped: &Stopped) -> String {
    match (stopped.how, stopped.by) {
        (How::Asked, Some(_)) => "asked: the guest agent switched the guest off".to_owned(),
        (How::Asked, None) => "asked: the guest switched itself off before it was reached".to_owned(),
        (How::Killed, Some(_)) => {
            "killed: the guest agent was asked, and the guest was not off in time".to_owned()
        }
        (How::Killed, None) => "killed: no guest agent could be asked".to_owned(),
    }
}

fn event_text(event: &Event) -> String {
    match event {
        Event::Running => "running".to_owned(),
        Event::Paused => "paused".to_owned(),
        Event::Stopping => "stopping".to_owned(),
        Event::Reset => "reset".to_owned(),
        Event::Agent(true) => "agent listens".to_owned(),
        Event::Agent(false) => "agent gone".to_owned(),
        Event::Watchdog(action) => format!("the guest did not feed its watchdog: {}", action_name(*action)),
        Event::DiskError(error) => format!(
            "{} failed, so the machine is paused: {}",
            error.disk, error.message
        ),
        Event::Plugged(device) => format!("plugged in: {} {}", device.id, device.backend),
        Event::Unplugged(device) => format!("pulled out: {} {}", device.id, device.backend),
        Event::Ended(Ending { reason, message }) => format!("ended ({}): {message}", reason_name(*reason)),
    }
}

fn action_name(action: WatchdogAction) -> &'static str {
    match action {
        WatchdogAction::Reset => "reset",
        WatchdogAction::Poweroff => "poweroff",
        WatchdogAction::Pause => "pause",
    }
}

fn reason_name(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Poweroff => "poweroff",
        EndReason::Reset => "reset",
        EndReason::Killed => "killed",
        EndReason::Overdue => "overdue",
        EndReason::Failed => "failed",
    }
}

fn name_of(accelerator: &rvmm_control::Accelerator) -> &'static str {
    match accelerator {
        rvmm_control::Accelerator::Kvm => "kvm",
        rvmm_control::Accelerator::Tcg => "tcg",
    }
}

fn parse_json(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(arguments @ Value::Object(_)) => Ok(arguments),
        _ => Err(format!("'{text}' is no JSON object")),
    }
}

/// Seconds, or with a unit: `30`, `30s`, `5m`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let (digits, factor) = match text.strip_suffix('m') {
        Some(digits) => (digits, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let seconds = digits
        .parse::<u32>()
        .ok()
        .and_then(|count| count.checked_mul(factor));
    let seconds = seconds.ok_or_else(|| format!("'{text}' is not a time, such as 30s or 5m"))?;
    Ok(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_seconds_or_has_a_unit() {
        let seconds = |text| parse_time(text).map(|time| time.as_secs());
        assert_eq!(
            [seconds("0"), seconds("30s"), seconds("5m")],
            [Ok(0), Ok(30), Ok(300)]
        );
        for wrong in ["", "s", "-1s", "1h", "99999999999", "71582789m"] {
            assert!(
                parse_time(wrong).unwrap_err().contains("is not a time"),
                "{wrong}"
            );
        }
    }
}
