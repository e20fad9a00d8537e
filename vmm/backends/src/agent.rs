//! The guest agent: what a guest's `qemu-guest-agent`, or our own init, is asked over a port of the virtio console.
//!
//! ```text
//!   ask ─► (port open?) ─► 0xff, guest-sync-delimited N ─► its answer N ─► guest-shutdown ─► the guest ends, or says why not
//!             └─ not yet: asked as soon as it opens
//! ```
//!
//! Everything that comes out of the port is the guest's word, and hostile: an answer has at most [`MAX_ANSWER`] bytes,
//! and what does not answer the question that is open is passed over. What waits to go in is a few hundred bytes.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use serde::Deserialize;

/// The name by which an agent finds its port: `/dev/virtio-ports/` and this.
pub const NAME: &str = "org.qemu.guest_agent.0";

/// Longest answer in bytes that is looked at.
const MAX_ANSWER: usize = 4 << 10;

/// Begins an answer to `guest-sync-delimited`, and makes the agent forget what it was told before.
const DELIMITER: u8 = 0xff;

/// Told whenever an agent begins to listen, or stops. Must not wait.
pub type OnOpen = Box<dyn Fn(bool) + Send + Sync>;

/// The dialogue with a machine's agent; all clones are the same one. It outlives a boot, as the machine does.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

struct Shared {
    talk: Mutex<Talk>,
    /// Signalled when there is something to [`Agent::read`].
    output: OwnedFd,
    on_open: OnOpen,
}

#[derive(Debug, Default)]
struct Talk {
    open: bool,
    /// The guest is to switch itself off.
    wanted: bool,
    step: Step,
    heard: Vec<u8>,
    /// The rest of this line is too long to be looked at.
    deaf: bool,
    output: VecDeque<u8>,
    syncs: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Idle,
    /// Waits for the answer with this number.
    Syncing(u64),
    /// It was told to switch off.
    Told,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "return")]
    value: Option<serde_json::Value>,
    error: Option<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    desc: String,
}

// === impl Agent ===

impl Agent {
    /// An agent that does not listen yet.
    ///
    /// # Errors
    /// The kernel's, when it gives no event descriptor.
    pub fn new(on_open: OnOpen) -> io::Result<Self> {
        let shared = Shared {
            talk: Mutex::default(),
            output: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            on_open,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Has the guest switch itself off: now if the agent listens, else as soon as it does.
    pub fn ask_poweroff(&self) {
        let mut talk = self.talk();
        talk.wanted = true;
        talk.begin();
        drop(talk);
        self.signal();
    }

    /// Whether the agent has been told to switch the guest off.
    pub fn was_told(&self) -> bool {
        self.talk().step == Step::Told
    }

    /// Whether an agent listens.
    pub fn is_open(&self) -> bool {
        self.talk().open
    }

    /// A new boot: nobody listens, and nothing is wanted.
    pub fn reset(&self) {
        self.set_open(false);
        *self.talk() = Talk::default();
    }

    /// The guest's end of the port was opened or closed. May be called with the device locked.
    pub fn set_open(&self, open: bool) {
        let mut talk = self.talk();
        if talk.open == open {
            return;
        }
        talk.open = open;
        talk.output.clear();
        talk.heard.clear();
        if talk.step != Step::Told {
            talk.step = Step::Idle;
            talk.begin();
        }
        drop(talk);
        self.signal();
        (self.shared.on_open)(open);
    }

    /// Takes what the guest says. May be called with the device locked.
    pub fn hear(&self, bytes: &[u8]) {
        let mut talk = self.talk();
        for &byte in bytes {
            match byte {
                DELIMITER => talk.forget(),
                b'\n' => {
                    let line = std::mem::take(&mut talk.heard);
                    if !std::mem::take(&mut talk.deaf) {
                        talk.understand(&line);
                    }
                }
                _ if talk.heard.len() >= MAX_ANSWER => talk.deaf = true,
                _ => talk.heard.push(byte),
            }
        }
        let speaks = !talk.output.is_empty();
        drop(talk);
        if speaks {
            self.signal();
        }
    }

    /// Gives what the agent is to be told, as far as it fits.
    pub fn read(&self, buffer: &mut [u8]) -> usize {
        let mut talk = self.talk();
        let count = talk.output.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(talk.output.drain(..count)) {
            *to = from;
        }
        count
    }

    /// Becomes readable when there may be something to [`Agent::read`]. Open for as long as any clone lives.
    pub fn output_fd(&self) -> BorrowedFd<'_> {
        self.shared.output.as_fd()
    }

    fn signal(&self) {
        // Fails only when the counter is about to overflow, and then the reader is awake anyway.
        rustix::io::write(&self.shared.output, &1u64.to_ne_bytes()).ok();
    }

    fn talk(&self) -> MutexGuard<'_, Talk> {
        self.shared.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("talk", &self.talk()).finish()
    }
}

// === impl Talk ===

impl Talk {
    fn begin(&mut self) {
        if self.open && self.wanted && self.step == Step::Idle {
            self.syncs += 1;
            self.step = Step::Syncing(self.syncs);
            self.output.push_back(DELIMITER);
            self.say(&format!(
                r#"{{"execute":"guest-sync-delimited","arguments":{{"id":{}}}}}"#,
                self.syncs
            ));
        }
    }

    fn say(&mut self, line: &str) {
        self.output.extend(line.bytes().chain([b'\n']));
    }

    fn forget(&mut self) {
        self.heard.clear();
        self.deaf = false;
    }

    fn understand(&mut self, line: &[u8]) {
        let Ok(answer) = serde_json::from_slice::<Answer>(line) else {
            return;
        };
        match self.step {
            Step::Syncing(number) if answer.value.is_some_and(|value| value == number) => {
                self.step = Step::Told;
                self.wanted = false;
                self.say(r#"{"execute":"guest-shutdown","arguments":{"mode":"powerdown"}}"#);
            }
            Step::Told => {
                if let Some(complaint) = answer.error {
                    self.step = Step::Idle;
                    let said: String = complaint.desc.chars().filter(|c| !c.is_control()).collect();
                    tracing::warn!("the guest agent does not switch the guest off: {said}");
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SYNC: &str = "{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":1}}\n";
    const SHUTDOWN: &str = "{\"execute\":\"guest-shutdown\",\"arguments\":{\"mode\":\"powerdown\"}}\n";

    fn agent() -> Agent {
        Agent::new(Box::new(|_| {})).unwrap()
    }

    fn said(agent: &Agent) -> String {
        let mut buffer = [0; 256];
        let count = agent.read(&mut buffer);
        String::from_utf8_lossy(&buffer[..count]).replace('\u{fffd}', "")
    }

    #[test]
    fn an_agent_is_synchronised_and_then_told() {
        let agent = agent();
        agent.set_open(true);
        assert_eq!(said(&agent), "");
        agent.ask_poweroff();
        assert_eq!((said(&agent).as_str(), agent.was_told()), (SYNC, false));
        agent.hear(b"{\"return\": 77}\n\xff{\"return\": 1}\n");
        assert_eq!((said(&agent).as_str(), agent.was_told()), (SHUTDOWN, true));
    }

    #[test]
    fn an_agent_that_comes_late_is_told_when_it_comes() {
        let agent = agent();
        agent.ask_poweroff();
        assert_eq!(said(&agent), "");
        agent.set_open(true);
        assert_eq!(said(&agent), SYNC);
    }

    #[test]
    fn an_agent_that_is_started_again_before_it_answered_is_asked_again() {
        let agent = agent();
        agent.set_open(true);
        agent.ask_poweroff();
        agent.set_open(false);
        assert_eq!(said(&agent), "");
        agent.set_open(true);
        assert_eq!(said(&agent), SYNC.replace('1', "2"));
    }

    #[test]
    fn a_refusal_is_heard_and_a_new_boot_starts_afresh() {
        let agent = agent();
        agent.set_open(true);
        agent.ask_poweroff();
        agent.hear(
            b"{\"return\": 1}\n{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u001b[2J\"}}\n",
        );
        assert!(!agent.was_told());
        agent.reset();
        assert!(!agent.is_open());
    }

    #[test]
    fn who_listens_is_told_once_for_each_change() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let ears = Arc::clone(&told);
        let agent = Agent::new(Box::new(move |open| ears.lock().unwrap().push(open))).unwrap();
        for open in [true, true, false, false] {
            agent.set_open(open);
        }
        assert_eq!(*told.lock().unwrap(), [true, false]);
    }

    #[test]
    fn an_answer_without_end_is_not_kept() {
        let agent = agent();
        agent.set_open(true);
        agent.ask_poweroff();
        agent.hear(&vec![b' '; 10 * MAX_ANSWER]);
        assert!(agent.talk().heard.len() <= MAX_ANSWER);
        agent.hear(b"\n{\"return\": 1}\n");
        assert!(agent.was_told());
    }

    proptest! {
        #[test]
        fn whatever_a_guest_says_what_waits_for_it_stays_small(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20)) {
            let agent = agent();
            agent.set_open(true);
            agent.ask_poweroff();
            pieces.iter().for_each(|piece| agent.hear(piece));
            let talk = agent.talk();
            prop_assert!(talk.output.len() < 256 && talk.heard.len() <= MAX_ANSWER);
        }
    }
}
