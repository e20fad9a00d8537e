//! The guest agent: what a guest's `qemu-guest-agent`, or our own init, is asked over a port of the virtio console.
//!
//! ```text
//!   ask_poweroff ─► (port open?) ─► 0xff, guest-sync-delimited N ─► its answer N ─► guest-shutdown ─► the guest ends, or says why not
//!                      └─ not yet: asked as soon as it opens
//!   ask ──────────► (port open?) ─► the same ─────────────────────► its answer N ─► the question ───► its answer, or its complaint
//!                      └─ no: refused
//! ```
//!
//! One question at a time; switching off goes before all of them. One that is not answered is given up when the next one comes and
//! it has had its time: no timer is needed, and a silent agent costs nothing.
//!
//! Everything that comes out of the port is the guest's word, and hostile: an answer has at most [`MAX_ANSWER`] bytes,
//! and what does not answer the question that is open is passed over. What waits to go in is one question, of at most [`MAX_QUESTION`].

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use serde::Deserialize;
use serde_json::{Value, json};

/// The name by which an agent finds its port: `/dev/virtio-ports/` and this.
pub const NAME: &str = "org.qemu.guest_agent.0";

/// Longest answer in bytes that is looked at; it fits into a message of the control socket however it is written.
const MAX_ANSWER: usize = 32 << 10;

/// Longest question in bytes.
const MAX_QUESTION: usize = 32 << 10;

/// How long an agent may take to answer before another question may take this one's place.
const PATIENCE: Duration = Duration::from_secs(10);

/// Begins an answer to `guest-sync-delimited`, and makes the agent forget what it was told before.
const DELIMITER: u8 = 0xff;

/// Told whenever an agent begins to listen, or stops. Must not wait.
pub type OnOpen = Box<dyn Fn(bool) + Send + Sync>;

/// Told once what came of a question, from any thread. Must not wait.
pub type OnAnswer = Box<dyn FnOnce(Result<Value, AskError>) + Send>;

/// A question was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is nobody.
    #[error("no guest agent listens")]
    Absent,
    /// It has something else to do.
    #[error("the guest agent has not answered another question yet")]
    Busy,
    /// It said nothing, or what is no answer.
    #[error("the guest agent did not answer")]
    Silent,
    /// It did not want to, or could not.
    #[error("the guest agent: {0}")]
    Complaint(String),
    /// The question or its answer.
    #[error("that is more than a guest agent is asked, or may answer")]
    TooLong,
}

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

#[derive(Default)]
struct Talk {
    open: bool,
    /// The guest is to switch itself off.
    wanted: bool,
    question: Option<Question>,
    step: Step,
    heard: Vec<u8>,
    /// The rest of this line is too long to be looked at.
    deaf: bool,
    output: VecDeque<u8>,
    syncs: u64,
}

struct Question {
    line: String,
    since: Instant,
    on_answer: OnAnswer,
}

/// What came of a question, and who is to be told: when the dialogue is no longer locked.
type Settled = Option<(Question, Result<Value, AskError>)>;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Idle,
    /// Waits for the answer with this number.
    Syncing(u64),
    /// Waits for the answer to the question.
    Asked,
    /// It was told to switch off.
    Told,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "return")]
    value: Option<Value>,
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
        // Whoever asked something else is not answered any more.
        let settled = talk.settle(Err(AskError::Busy));
        if matches!(talk.step, Step::Asked | Step::Syncing(_)) {
            talk.step = Step::Idle;
        }
        talk.begin();
        drop(talk);
        self.signal();
        tell(settled);
    }

    /// Asks the agent something: a command of its protocol, with its arguments.
    pub fn ask(&self, execute: &str, arguments: Option<&Value>, on_answer: OnAnswer) {
        let mut line = json!({"execute": execute});
        if let Some(arguments) = arguments {
            line["arguments"] = arguments.clone();
        }
        let question = Question {
            line: line.to_string(),
            since: Instant::now(),
            on_answer,
        };
        let mut talk = self.talk();
        let settled = match talk.refusal(&question) {
            Some(error) => Some((question, Err(error))),
            None => {
                let given_up = talk.settle(Err(AskError::Silent));
                talk.question = Some(question);
                talk.step = Step::Idle;
                talk.begin();
                given_up
            }
        };
        drop(talk);
        self.signal();
        tell(settled);
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
        let settled = talk.settle(Err(AskError::Absent));
        if talk.step != Step::Told {
            talk.step = Step::Idle;
            talk.begin();
        }
        drop(talk);
        self.signal();
        tell(settled);
        (self.shared.on_open)(open);
    }

    /// Takes what the guest says. May be called with the device locked.
    pub fn hear(&self, bytes: &[u8]) {
        let mut talk = self.talk();
        let mut settled = None;
        for &byte in bytes {
            match byte {
                DELIMITER => talk.forget(),
                b'\n' => {
                    let line = std::mem::take(&mut talk.heard);
                    if !std::mem::take(&mut talk.deaf) {
                        // At most one line answers: no new question comes while this one is looked at.
                        settled = talk.understand(&line).or(settled);
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
        tell(settled);
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
    /// Without what is said: there may be passwords in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let talk = self.talk();
        f.debug_struct("Agent")
            .field("open", &talk.open)
            .field("step", &talk.step)
            .finish_non_exhaustive()
    }
}

/// Tells who asked.
fn tell(settled: Settled) {
    if let Some((question, answer)) = settled {
        (question.on_answer)(answer);
    }
}

/// A guest's words for people, on one line.
fn printable(said: &str) -> String {
    said.chars().filter(|c| !c.is_control()).collect()
}

// === impl Talk ===

impl Talk {
    fn begin(&mut self) {
        let asked = self.wanted || self.question.is_some();
        if self.open && asked && self.step == Step::Idle {
            self.syncs += 1;
            self.step = Step::Syncing(self.syncs);
            // What an agent that went deaf has not fetched is not to pile up.
            self.output.clear();
            self.output.push_back(DELIMITER);
            self.say(&format!(
                r#"{{"execute":"guest-sync-delimited","arguments":{{"id":{}}}}}"#,
                self.syncs
            ));
        }
    }

    /// Why this is not asked now.
    fn refusal(&self, question: &Question) -> Option<AskError> {
        let answers = |before: &Question| before.since.elapsed() < PATIENCE;
        if !self.open {
            Some(AskError::Absent)
        } else if self.wanted || self.step == Step::Told || self.question.as_ref().is_some_and(answers) {
            Some(AskError::Busy)
        } else if question.line.len() > MAX_QUESTION {
            Some(AskError::TooLong)
        } else {
            None
        }
    }

    fn settle(&mut self, answer: Result<Value, AskError>) -> Settled {
        self.question.take().map(|question| (question, answer))
    }

    fn say(&mut self, line: &str) {
        self.output.extend(line.bytes().chain([b'\n']));
    }

    fn forget(&mut self) {
        self.heard.clear();
        self.deaf = false;
    }

    fn understand(&mut self, line: &[u8]) -> Settled {
        let answer = serde_json::from_slice::<Answer>(line).ok()?;
        match self.step {
            Step::Syncing(number) if answer.value.as_ref().is_some_and(|value| *value == number) => {
                if self.wanted {
                    self.step = Step::Told;
                    self.wanted = false;
                    self.say(r#"{"execute":"guest-shutdown","arguments":{"mode":"powerdown"}}"#);
                } else if let Some(question) = &self.question {
                    self.step = Step::Asked;
                    let line = question.line.clone();
                    self.say(&line);
                }
                None
            }
            Step::Asked => {
                let answered = match (answer.value, answer.error) {
                    (_, Some(complaint)) => Err(AskError::Complaint(printable(&complaint.desc))),
                    // Numbers may be longer when they are written again.
                    (Some(value), None) if value.to_string().len() > MAX_ANSWER => Err(AskError::TooLong),
                    (Some(value), None) => Ok(value),
                    (None, None) => return None,
                };
                self.step = Step::Idle;
                self.settle(answered)
            }
            Step::Told => {
                if let Some(complaint) = answer.error {
                    self.step = Step::Idle;
                    let said = printable(&complaint.desc);
                    tracing::warn!("the guest agent does not switch the guest off: {said}");
                }
                None
            }
            _ => None,
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

    type Answers = Arc<Mutex<Vec<Result<Value, AskError>>>>;

    /// Asks for the guest's name; what comes of it is put there.
    fn ask(agent: &Agent) -> Answers {
        let answers = Answers::default();
        let ears = Arc::clone(&answers);
        let on_answer = move |answer| ears.lock().unwrap().push(answer);
        agent.ask("guest-get-host-name", None, Box::new(on_answer));
        answers
    }

    fn come(answers: &Answers) -> Vec<Result<Value, AskError>> {
        answers.lock().unwrap().clone()
    }

    const QUESTION: &str = "{\"execute\":\"guest-get-host-name\"}\n";

    #[test]
    fn a_question_is_answered_by_its_own_answer_or_complaint() {
        let agent = agent();
        assert_eq!(come(&ask(&agent)), [Err(AskError::Absent)]);
        agent.set_open(true);
        let answers = ask(&agent);
        assert_eq!(said(&agent), SYNC);
        // Late words for somebody else, and then its number.
        agent.hear(b"{\"return\": \"old\"}\n\xff{\"return\": 1}\n");
        assert_eq!((said(&agent).as_str(), come(&answers)), (QUESTION, vec![]));
        agent.hear(b"{\"return\": {\"host-name\": \"a\"}}\n{\"return\": 2}\n");
        assert_eq!(come(&answers), [Ok(json!({"host-name": "a"}))]);
        let answers = ask(&agent);
        agent.hear(b"{\"return\": 2}\n{\"error\": {\"desc\": \"no\\u001b\"}}\n");
        assert_eq!(come(&answers), [Err(AskError::Complaint("no".to_owned()))]);
    }

    #[test]
    fn one_question_is_open_and_switching_off_goes_before_it() {
        let agent = agent();
        agent.set_open(true);
        let first = ask(&agent);
        assert_eq!(come(&ask(&agent)), [Err(AskError::Busy)]);
        agent.ask_poweroff();
        assert_eq!(come(&first), [Err(AskError::Busy)]);
        assert_eq!(come(&ask(&agent)), [Err(AskError::Busy)]);
        agent.hear(b"{\"return\": 2}\n");
        assert!(agent.was_told());
    }

    #[test]
    fn a_question_ends_with_who_was_asked() {
        let agent = agent();
        agent.set_open(true);
        let answers = ask(&agent);
        agent.set_open(false);
        assert_eq!(come(&answers), [Err(AskError::Absent)]);
        agent.set_open(true);
        let answers = ask(&agent);
        agent.reset();
        assert_eq!(come(&answers), [Err(AskError::Absent)]);
    }

    #[test]
    fn an_answer_that_grows_when_it_is_written_again_is_too_long() {
        let agent = agent();
        agent.set_open(true);
        let answers = ask(&agent);
        agent.hear(b"{\"return\": 1}\n");
        let numbers = vec!["1e15"; MAX_ANSWER / 8].join(",");
        agent.hear(format!("{{\"return\": [{numbers}]}}\n").as_bytes());
        assert_eq!(come(&answers), [Err(AskError::TooLong)]);
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
