//! What is said on the control socket. Each line is one JSON object; see [`Call`] and [`Line`].
//!
//! ```json
//! → {"v":1,"id":7,"request":"info"}
//! ← {"id":7,"reply":{"info":{"name":"vmi-alpine", …}}}
//! → {"v":1,"id":8,"request":"kill"}
//! ← {"id":8,"reply":"done"}
//! ```
//!
//! Within a version, requests, events, counters and fields may be added: a reader passes over what it does not know.

mod ending;

use std::collections::BTreeMap;
use std::fmt;

use rvmm_spec::wire::{DiskDocument, NetDocument};
use serde::{Deserialize, Serialize};

pub use ending::{EndReason, Ending};

/// The version of these messages. A server refuses calls of another one.
pub const VERSION: u32 = 1;

/// A request as it stands on a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// [`VERSION`].
    pub v: u32,
    /// Chosen by the client, given back with the answer.
    pub id: u64,
    /// What is wanted.
    pub request: Request,
}

/// What a client may ask for. Which of these a machine takes in which state stands in [`crate::transition`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Request {
    /// Who and how the machine is.
    Info,
    /// What was counted since rvmm started.
    Stats,
    /// From now on send [`Event`]s on this connection.
    Subscribe,
    /// Stop the vCPUs where they are.
    Pause,
    /// Let paused vCPUs go on.
    Resume,
    /// Ask the guest to switch itself off; cut its power if it has not by then. Answered when the machine is over.
    Stop {
        /// How long the guest may take.
        deadline_seconds: u32,
    },
    /// End the machine at once, as if its power were cut.
    Kill,
    /// Boot the guest again, as if its reset button were pressed.
    Reset,
    /// Leave the guest this much of its memory.
    Balloon {
        /// Bytes that the guest may use.
        bytes: u64,
    },
    /// Ask the guest agent something. Answered when it answers, or refuses.
    AskAgent {
        /// A command of its protocol, such as `guest-get-osinfo`.
        execute: String,
        /// The command's arguments, if it takes any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        arguments: Option<serde_json::Value>,
    },
    /// Plug a disk in. Its image, opened by the client, goes along as a descriptor.
    AddDisk {
        /// Its name from now on; one is made if none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// As in `spec.json`. The path is only told to others.
        disk: DiskDocument,
    },
    /// Plug a network interface in. Its tap, attached by the client, goes along: a descriptor for each queue. For a passt
    /// nothing does.
    AddNet {
        /// Its name from now on; one is made if none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// As in `spec.json`.
        net: NetDocument,
    },
    /// Pull out what was plugged in.
    RemoveDevice {
        /// As in [`Info::devices`].
        id: String,
    },
}

/// Anything a server sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// The answer to the call with this id.
    Answer {
        /// The call's.
        id: u64,
        /// What came of it.
        reply: Reply,
    },
    /// Something happened; only after [`Request::Subscribe`].
    Event {
        /// What happened.
        event: Event,
    },
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// To [`Request::Info`].
    Info(Box<Info>),
    /// To [`Request::Stats`].
    Stats(Stats),
    /// Done, or begun and sure to happen.
    Done,
    /// To [`Request::AskAgent`]: what it said. The guest's word, and hostile.
    Agent(serde_json::Value),
    /// To [`Request::AddDisk`] and [`Request::AddNet`]: what the machine has now.
    Plugged(Device),
    /// To [`Request::Stop`]: the machine is over.
    Stopped(Stopped),
    /// Not done, and why.
    Refused(Refusal),
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub message: String,
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefusalCode {
    /// What was sent is no request of this version.
    Request,
    /// Not in the state in which the machine is.
    State,
    /// This machine never can.
    Unsupported,
    /// The client has too many unanswered requests.
    Busy,
    /// It was tried, and did not work.
    Failed,
}

/// How a machine came to its end after [`Request::Stop`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Whether the guest did it, or we.
    pub how: How,
    /// How the guest was asked; `None` if nobody was there to be asked.
    pub by: Option<AskedBy>,
}

/// Who ended a machine that was to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// The guest ended in time.
    Asked,
    /// Its power was cut.
    Killed,
}

/// A way to ask a guest to switch itself off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AskedBy {
    /// The guest agent, which ends it as its own `poweroff` command does.
    Agent,
    /// The kernel's SysRq keys on the serial console: it syncs and remounts its file systems read-only, and powers
    /// off.
    Sysrq,
}

/// What is counted and measured, by name; a reader takes what it knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// What only grows. The names stand in this crate's README.
    pub counters: BTreeMap<String, u64>,
    /// What goes up and down. The names stand there, too.
    #[serde(default)]
    pub gauges: BTreeMap<String, u64>,
}

/// What a machine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// The machine's name.
    pub name: String,
    /// UID of the object that it belongs to.
    pub uid: Option<String>,
    /// The rvmm process.
    pub pid: u32,
    /// Version of rvmm.
    pub version: String,
    /// Which backend runs the guest.
    pub accelerator: Accelerator,
    /// Why that backend, in a sentence.
    pub accelerator_reason: String,
    /// Where in its life the machine is.
    pub state: State,
    /// Number of vCPUs.
    pub cpus: u8,
    /// Guest RAM in bytes.
    pub memory_bytes: u64,
    /// How often the guest was reset.
    pub resets: u64,
    /// How long rvmm has been there.
    #[serde(default)]
    pub uptime_seconds: u64,
    /// Whether a guest agent listens.
    #[serde(default)]
    pub agent: bool,
    /// Disks and network interfaces, in the guest's order.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// The disk that it was paused for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_error: Option<DiskError>,
}

/// A disk's request that the host could not do; it waits, and is tried again when the machine goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskError {
    /// The disk's name, as in [`Info::devices`].
    pub disk: String,
    /// For people: what the host said.
    pub message: String,
}

/// A device that can be named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name here, such as `disk0`.
    pub id: String,
    /// What stands behind it: a path, or the name of a tap.
    pub backend: String,
    /// Whether it was plugged in, and can be pulled out.
    #[serde(default)]
    pub plugged: bool,
}

/// What runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The H extension, through KVM.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// Where in its life a machine is; [`crate::transition`] draws the ways from one to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Being put together, or waiting before it is started again.
    Starting,
    /// The guest's vCPUs run.
    Running,
    /// The guest's vCPUs stand still.
    Paused,
    /// The guest was asked to switch itself off, and is about to, or to be killed.
    Stopping,
    /// Over; the process is about to end.
    Ended,
}

/// Something that happened to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// The vCPUs run: for the first time, after a reset, or after a pause.
    Running,
    /// The vCPUs stand still.
    Paused,
    /// Someone wants the guest to switch itself off.
    Stopping,
    /// The guest is booted again, by its own wish or someone else's.
    Reset,
    /// The guest agent began to listen, or stopped.
    Agent(bool),
    /// The guest has not fed its watchdog in time, and this is done to it.
    Watchdog(WatchdogAction),
    /// A disk's request waits, and the machine is paused for it.
    #[serde(rename = "disk-error")]
    DiskError(DiskError),
    /// A device was plugged in.
    Plugged(Device),
    /// A device was pulled out.
    Unplugged(Device),
    /// The machine is over; nothing comes after this.
    Ended(Ending),
}

/// What is done to a guest that does not feed its watchdog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchdogAction {
    /// It is reset.
    Reset,
    /// Its power is cut.
    Poweroff,
    /// It is paused.
    Pause,
}

// === impl Request ===

impl Request {
    /// The name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Stats => "stats",
            Self::Subscribe => "subscribe",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop { .. } => "stop",
            Self::Kill => "kill",
            Self::Reset => "reset",
            Self::Balloon { .. } => "balloon",
            Self::AskAgent { .. } => "ask-agent",
            Self::AddDisk { .. } => "add-disk",
            Self::AddNet { .. } => "add-net",
            Self::RemoveDevice { .. } => "remove-device",
        }
    }
}

// === impl State ===

impl State {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
        }
    }
}

// === impl WatchdogAction ===

impl From<rvmm_spec::WatchdogAction> for WatchdogAction {
    fn from(action: rvmm_spec::WatchdogAction) -> Self {
        match action {
            rvmm_spec::WatchdogAction::Reset => Self::Reset,
            rvmm_spec::WatchdogAction::Poweroff => Self::Poweroff,
            rvmm_spec::WatchdogAction::Pause => Self::Pause,
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// A refusal of this kind.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
pub(crate) mod tests;
