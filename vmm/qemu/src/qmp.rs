//! What QEMU says on its QMP socket, and the commands that we give.
//!
//! ```text
//!   ← {"QMP": {"version": …}}        → {"execute": "qmp_capabilities"}
//!   ← {"return": {}}                 → {"execute": "cont"}
//!   ← {"return": {}}                 the guest runs
//!   ← {"event": "STOP"}              → {"execute": "stop"}
//!   ← {"event": "VSERPORT_CHANGE", "data": {"open": true, "id": "agent"}}         an agent listens
//!   ← {"event": "BLOCK_IO_ERROR", "data": {"node-name": "disk0", "action": "stop", "reason": "No space left on device"}}
//!   ← {"event": "WATCHDOG", "data": {"action": "none"}}                             it was not fed
//!   ← {"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}     and QEMU ends
//! ```

use rvmm_backends::DiskError;
use rvmm_control::frame::{LineTooLong, Lines};
use serde::Deserialize;

use crate::statistics::{DISKS, MEMORY};

/// Enters command mode; before that, QEMU sends no events.
pub const CAPABILITIES: &[u8] = b"{\"execute\": \"qmp_capabilities\"}\n";

/// Lets the guest run.
pub const CONTINUE: &[u8] = b"{\"execute\": \"cont\"}\n";

/// Makes the vCPUs and the guest's clock stand still.
pub const STOP: &[u8] = b"{\"execute\": \"stop\"}\n";

/// Leaves the guest so many bytes of its memory.
pub fn balloon(bytes: u64) -> String {
    format!("{{\"execute\": \"balloon\", \"arguments\": {{\"value\": {bytes}}}}}\n")
}

/// What commands carry whose answers are waited for.
pub const ERRAND: &str = "errand";

/// QEMU's class of refusals that are about a device that is not there (`QapiErrorClass`).
const NOT_FOUND: &str = "DeviceNotFound";

/// The name of the guest agent's port.
pub const AGENT: &str = "agent";

/// Something that QEMU said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Hello, and its version: major, minor, micro.
    Greeting((u32, u32, u32)),
    /// The command was done.
    Done,
    /// The command was refused, and why.
    Refused(String),
    /// What came of a command that carried [`ERRAND`].
    Errand(Result<(), Refusal>),
    /// The answer to a question of [`crate::statistics`]; nothing where it was refused.
    Counted(serde_json::Value),
    /// A device is gone.
    Deleted(String),
    /// The machine is over.
    Shutdown(Reason),
    /// The vCPUs stand still.
    Stopped,
    /// The vCPUs go on.
    Resumed,
    /// The guest's end of the agent's port was opened, or closed.
    Agent(bool),
    /// The guest has not fed its watchdog in time.
    Watchdog,
    /// A disk's request failed, and the vCPUs stand still for that.
    DiskFailed(DiskError),
    /// Anything that does not matter here.
    Other,
}

/// Why the machine is over (`ShutdownCause` of QEMU, as far as it matters here).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Reason {
    /// The guest switched itself off.
    GuestShutdown,
    /// The guest asked for a reset.
    GuestReset,
    /// The guest said that it failed.
    GuestPanic,
    /// Anything else, in QEMU's word.
    Other(String),
}

/// Its words cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// More than any message has.
    #[error("a message of QEMU has no end")]
    TooLong(#[source] LineTooLong),
    /// Not a message.
    #[error("QEMU sent what is not QMP")]
    Json(#[source] serde_json::Error),
}

/// Longest message in bytes: QEMU tells five thousand of each disk and what is behind it.
const LONGEST: usize = 1 << 20;

/// Turns bytes into what was said.
#[derive(Debug)]
pub struct Listener {
    lines: Lines,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "QMP")]
    greeting: Option<Greeting>,
    #[serde(rename = "return")]
    done: Option<serde_json::Value>,
    id: Option<String>,
    error: Option<Refusal>,
    event: Option<String>,
    data: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Greeting {
    version: Versions,
}

#[derive(Deserialize)]
struct Versions {
    qemu: Version,
}

#[derive(Deserialize)]
struct Version {
    major: u32,
    minor: u32,
    micro: u32,
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    class: String,
    desc: String,
}

#[derive(Deserialize)]
struct PortChange {
    open: bool,
    id: String,
}

#[derive(Deserialize)]
struct Deletion {
    /// Parts of devices have none.
    device: Option<String>,
}

/// What a disk's request failed of.
#[derive(Deserialize)]
struct IoError {
    #[serde(rename = "node-name", default)]
    node: String,
    action: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Shutdown {
    reason: Reason,
}

// === impl Listener ===

impl Default for Listener {
    fn default() -> Self {
        Self {
            lines: Lines::up_to(LONGEST),
        }
    }
}

impl Listener {
    /// Adds what came in and gives what was said by now.
    ///
    /// # Errors
    /// [`QmpError`]; QEMU is of no more use then.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<Vec<Said>, QmpError> {
        self.lines.feed(bytes);
        let mut said = Vec::new();
        while let Some(line) = self.lines.next_line().map_err(QmpError::TooLong)? {
            said.push(understand(&line).map_err(QmpError::Json)?);
        }
        Ok(said)
    }
}

fn understand(line: &[u8]) -> Result<Said, serde_json::Error> {
    let message: Message = serde_json::from_slice(line)?;
    if let Some(greeting) = message.greeting {
        let version = greeting.version.qemu;
        return Ok(Said::Greeting((version.major, version.minor, version.micro)));
    }
    match message.id.as_deref() {
        Some(ERRAND) => return Ok(Said::Errand(message.error.map_or(Ok(()), Err))),
        Some(DISKS | MEMORY) => return Ok(Said::Counted(message.done.unwrap_or_default())),
        _ => {}
    }
    if let Some(refusal) = message.error {
        return Ok(Said::Refused(refusal.desc));
    }
    Ok(match message.event.as_deref() {
        Some("SHUTDOWN") => {
            let shutdown: Shutdown = serde_json::from_value(message.data.unwrap_or_default())?;
            Said::Shutdown(shutdown.reason)
        }
        Some("STOP") => Said::Stopped,
        Some("RESUME") => Said::Resumed,
        Some("WATCHDOG") => Said::Watchdog,
        Some("BLOCK_IO_ERROR") => {
            let error: IoError = serde_json::from_value(message.data.unwrap_or_default())?;
            error.into_said()
        }
        Some("VSERPORT_CHANGE") => {
            let change: PortChange = serde_json::from_value(message.data.unwrap_or_default())?;
            if change.id == AGENT {
                Said::Agent(change.open)
            } else {
                Said::Other
            }
        }
        Some("DEVICE_DELETED") => {
            let deletion: Deletion = serde_json::from_value(message.data.unwrap_or_default())?;
            deletion.device.map_or(Said::Other, Said::Deleted)
        }
        None if message.done.is_some() => Said::Done,
        _ => Said::Other,
    })
}

// === impl IoError ===

impl IoError {
    /// One that the guest is told of, or that is ignored, is no news.
    fn into_said(self) -> Said {
        if self.action != "stop" {
            return Said::Other;
        }
        // A throttle in front of a disk's image fails in its name. (One that was plugged in is known by another name.)
        let number = self.node.strip_prefix("limited");
        let disk = number.map_or(self.node.clone(), |number| format!("disk{number}"));
        Said::DiskFailed(DiskError {
            disk,
            why: self.reason,
        })
    }
}

// === impl Refusal ===

impl Refusal {
    /// The device that the command is about is not there.
    pub fn is_about_nobody(&self) -> bool {
        self.class == NOT_FOUND
    }

    /// In QEMU's words.
    pub fn into_text(self) -> String {
        self.desc
    }
}

// === impl Reason ===

impl From<String> for Reason {
    fn from(word: String) -> Self {
        match word.as_str() {
            "guest-shutdown" => Self::GuestShutdown,
            "guest-reset" => Self::GuestReset,
            "guest-panic" => Self::GuestPanic,
            _ => Self::Other(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As QEMU 10.0.13 sent it.
    const SESSION: &str = concat!(
        r#"{"QMP": {"version": {"qemu": {"micro": 13, "minor": 0, "major": 10}, "package": "Debian"}, "capabilities": ["oob"]}}"#,
        "\r\n",
        r#"{"return": {}}"#,
        "\r\n",
        r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}"#,
        "\r\n",
        r#"{"return": {}}"#,
        "\r\n",
        r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "WATCHDOG", "data": {"action": "none"}}"#,
        "\r\n",
        r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#,
        "\r\n",
    );

    #[test]
    fn a_session_is_understood_however_it_is_cut() {
        let mut listener = Listener::default();
        let mut said = Vec::new();
        for piece in SESSION.as_bytes().chunks(7) {
            said.extend(listener.hear(piece).unwrap());
        }
        assert_eq!(
            said,
            [
                Said::Greeting((10, 0, 13)),
                Said::Done,
                Said::Resumed,
                Said::Done,
                Said::Watchdog,
                Said::Shutdown(Reason::GuestReset)
            ]
        );
    }

    #[test]
    fn a_disk_that_stops_the_guest_is_known_by_its_name() {
        // As QEMU 10.0.13 sent it.
        let event = |action: &str| {
            let line = format!(
                r#"{{"timestamp": {{"seconds": 1, "microseconds": 2}}, "event": "BLOCK_IO_ERROR", "data": {{"device": "", "nospace": true, "node-name": "limited3", "reason": "No space left on device", "operation": "write", "action": "{action}"}}}}"#
            );
            Listener::default().hear(format!("{line}\n").as_bytes()).unwrap()
        };
        let failed = DiskError {
            disk: "disk3".to_owned(),
            why: "No space left on device".to_owned(),
        };
        assert_eq!(event("stop"), [Said::DiskFailed(failed)]);
        assert_eq!(event("report"), [Said::Other]);
    }

    #[test]
    fn a_refusal_keeps_its_reason() {
        let line = b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}}\n";
        let said = Listener::default().hear(line).unwrap();
        assert_eq!(said, [Said::Refused("no such thing".to_owned())]);
    }

    #[test]
    fn a_device_that_is_not_there_is_known_by_the_class_of_the_refusal() {
        let answer = |class: &str| {
            let line = format!(
                r#"{{"id": "errand", "error": {{"class": "{class}", "desc": "Device 'd' not found"}}}}"#
            );
            Listener::default().hear(format!("{line}\n").as_bytes()).unwrap()
        };
        let is_about_nobody = |class| match &answer(class)[..] {
            [Said::Errand(Err(refusal))] => refusal.is_about_nobody(),
            other => unreachable!("{other:?}"),
        };
        assert!(is_about_nobody("DeviceNotFound") && !is_about_nobody("GenericError"));
    }

    #[test]
    fn what_is_not_qmp_is_an_error() {
        assert!(matches!(
            Listener::default().hear(b"hello\n"),
            Err(QmpError::Json(_))
        ));
        let endless = vec![b'x'; LONGEST + 1];
        assert!(matches!(
            Listener::default().hear(&endless),
            Err(QmpError::TooLong(_))
        ));
    }
}
