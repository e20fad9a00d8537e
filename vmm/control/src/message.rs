//! What is said on the control socket. Each line is one JSON object; see [`Call`] and [`Line`].
//!
//! ```json
//! → {"v":1,"id":7,"request":"info"}
//! ← {"id":7,"reply":{"info":{"name":"vmi-alpine", …}}}
//! → {"v":1,"id":8,"request":"kill"}
//! ← {"id":8,"reply":"done"}
//! ```

use serde::{Deserialize, Serialize};

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

/// What a client may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Who and how the machine is.
    Info,
    /// End the machine at once, as if its power were cut.
    Kill,
    /// From now on send [`Event`]s on this connection.
    Subscribe,
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
    /// Done, or begun and sure to happen.
    Done,
    /// Not done, and why.
    Refused(String),
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

/// Where in its life a machine is. `Starting → Running → Ended`; a reset leads from `Running` to `Starting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Being put together, or waiting before it is started again.
    Starting,
    /// The guest's vCPUs run.
    Running,
    /// Over; the process is about to end.
    Ended,
}

/// Something that happened to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// The vCPUs run, for the first time or after a reset.
    Running,
    /// The guest asked for a reset.
    Reset,
    /// The machine is over; nothing comes after this.
    Ended(Ending),
}

/// How a machine ended; also the content of `exit.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// What ended it.
    pub reason: EndReason,
    /// For people: what happened, in a sentence.
    pub message: String,
}

/// What ended a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndReason {
    /// The guest switched itself off.
    Poweroff,
    /// The guest was reset, and was not to be started again.
    Reset,
    /// Someone asked for it: on the control socket, at the terminal, or by a signal.
    Killed,
    /// The machine could not be started, or could not go on.
    Failed,
}

// === impl EndReason ===

impl EndReason {
    /// The exit status of rvmm, as documented for its users.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Poweroff | Self::Killed => 0,
            Self::Failed => 1,
            Self::Reset => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_answers_look_as_documented() {
        let call: Call = serde_json::from_str(r#"{"v":1,"id":7,"request":"info"}"#).unwrap();
        assert_eq!(
            call,
            Call {
                v: 1,
                id: 7,
                request: Request::Info
            }
        );
        let answer = Line::Answer {
            id: 8,
            reply: Reply::Done,
        };
        assert_eq!(
            serde_json::to_string(&answer).unwrap(),
            r#"{"id":8,"reply":"done"}"#
        );
        let ended = Event::Ended(Ending {
            reason: EndReason::Poweroff,
            message: "off".into(),
        });
        assert_eq!(
            serde_json::to_string(&Line::Event { event: ended }).unwrap(),
            r#"{"event":{"ended":{"reason":"poweroff","message":"off"}}}"#
        );
    }
}
