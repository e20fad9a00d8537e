//! What the control socket's clients want, one after the other.
//!
//! `info`, `stats`, `subscribe`, `stop`, `kill` and questions to the guest agent are taken at once. A pause, its end, and a device on its way in or out
//! take a moment, in which the other requests stand in line, so that each is held against the state that those before it led to.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::{Finish, Supervisor};
use rvmm_backends::agent::AskError;
use rvmm_backends::control::Answer;
use rvmm_control::transition::check;
use rvmm_control::{AskedBy, Event, How, Info, Refusal, RefusalCode, Reply, Request, State, Stats, Stopped};
use rvmm_spec::OnStart;
use serde_json::Value;

/// The signal by which supervisors of services and containers ask for an end.
const TERMINATE: &str = "SIGTERM";

/// The machine is to switch itself off by then.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) deadline: Instant,
    seconds: u32,
    /// Those who want to know what came of it: at most as many as the control socket lets wait.
    answers: Vec<Answer>,
}

// === impl Stop ===

impl Stop {
    /// The deadline is over.
    pub(super) fn overdue(&self, was_told: bool) -> Finish {
        Finish::overdue(self.seconds, was_told)
    }

    /// Tells everyone what came of it.
    pub(super) fn answer(self, how: How, was_told: bool) {
        let stopped = Stopped {
            how,
            by: was_told.then_some(AskedBy::Agent),
        };
        for answer in self.answers {
            answer.send(Reply::Stopped(stopped.clone()));
        }
    }
}

/// How a client is told that the agent was not asked, or did not answer.
fn code_of(error: &AskError) -> RefusalCode {
    match error {
        AskError::Absent => RefusalCode::State,
        AskError::Busy => RefusalCode::Busy,
        AskError::Silent | AskError::Complaint(_) | AskError::TooLong => RefusalCode::Failed,
    }
}

impl Supervisor<'_> {
    /// Takes a request, or puts it in line.
    pub(super) fn call(
        &mut self,
        request: Request,
        opened: Vec<OwnedFd>,
        answer: Answer,
    ) -> anyhow::Result<Option<Finish>> {
        let at_once = matches!(
            request,
            Request::Info
                | Request::Stats
                | Request::Subscribe
                | Request::Stop { .. }
                | Request::Kill
                | Request::AskAgent { .. }
        );
        if !at_once && self.is_busy() {
            self.line.push_back((request, opened, answer));
            return Ok(None);
        }
        if let Err(refusal) = check(&request, self.state) {
            answer.refuse(refusal);
            return Ok(None);
        }
        match request {
            Request::Info => answer.send(Reply::Info(Box::new(self.info()))),
            Request::Stats => self.count(answer),
            Request::Subscribe => answer.send(Reply::Done),
            Request::Pause | Request::Resume => self.change(&request, answer),
            Request::Stop { deadline_seconds } => {
                return Ok(self.begin_stop(deadline_seconds, Some(answer)));
            }
            Request::Kill => {
                answer.send(Reply::Done);
                return Ok(Some(Finish::killed("the control socket")));
            }
            Request::Reset => {
                self.reset()?;
                answer.send(Reply::Done);
            }
            Request::Balloon { bytes } => self.balloon(bytes, answer),
            Request::AskAgent { execute, arguments } => self.ask_agent(&execute, arguments.as_ref(), answer),
            Request::AddDisk { .. } | Request::AddNet { .. } | Request::RemoveDevice { .. } => {
                self.rearrange(request, opened, answer);
            }
        }
        Ok(None)
    }

    fn ask_agent(&self, execute: &str, arguments: Option<&Value>, answer: Answer) {
        let on_answer = move |said| match said {
            Ok(value) => answer.send(Reply::Agent(value)),
            Err(error) => answer.refuse(Refusal::new(code_of(&error), error.to_string())),
        };
        self.lasting.agent.ask(execute, arguments, Box::new(on_answer));
    }

    fn balloon(&self, bytes: u64, answer: Answer) {
        let memory = self.spec.memory();
        if !(1..=memory.bytes()).contains(&bytes) {
            let text = format!("a guest of {memory} cannot be left {bytes} bytes");
            answer.refuse(Refusal::new(RefusalCode::Failed, text));
        } else if self
            .guest
            .as_ref()
            .is_some_and(|guest| guest.balloon(memory, bytes))
        {
            answer.send(Reply::Done);
        } else {
            let text = "this machine has no balloon; start it with --balloon";
            answer.refuse(Refusal::new(RefusalCode::Unsupported, text));
        }
    }

    fn change(&mut self, request: &Request, answer: Answer) {
        let Some(guest) = &self.guest else {
            answer.refuse(Refusal::new(RefusalCode::Failed, "there is no guest"));
            return;
        };
        let wanted = if *request == Request::Pause {
            State::Paused
        } else {
            State::Running
        };
        self.changing = Some((wanted, answer));
        if wanted == State::Paused {
            guest.pause();
        } else {
            guest.resume();
        }
    }

    /// The vCPUs stand still or go on. Whoever waited for it is told, and those in line have their turn.
    pub(super) fn changed(&mut self, state: State) -> anyhow::Result<Option<Finish>> {
        if self.state != State::Stopping {
            self.state = state;
        }
        match self.changing.take() {
            Some((wanted, answer)) if wanted == state => answer.send(Reply::Done),
            other => self.changing = other,
        }
        self.serve_line()
    }

    /// Those in line have their turn, until one of them takes a moment again.
    pub(super) fn serve_line(&mut self) -> anyhow::Result<Option<Finish>> {
        while !self.is_busy()
            && let Some((request, opened, answer)) = self.line.pop_front()
        {
            if let Some(finish) = self.call(request, opened, answer)? {
                return Ok(Some(finish));
            }
        }
        Ok(None)
    }

    fn is_busy(&self) -> bool {
        self.changing.is_some() || self.on_its_way.is_some()
    }

    /// Someone who started us, or a terminal, wants the end. A guest that can be asked has its time, once, where it is to have any.
    pub(super) fn told_to_end(&mut self, who: &'static str) -> Option<Finish> {
        match self.grace.take() {
            Some(seconds) if who == TERMINATE && self.lasting.agent.is_open() => {
                self.begin_stop(seconds, None)
            }
            _ => Some(Finish::killed(who)),
        }
    }

    /// Begins to stop, or joins what goes on, which may become shorter by it.
    fn begin_stop(&mut self, seconds: u32, answer: Option<Answer>) -> Option<Finish> {
        let deadline = Instant::now() + Duration::from_secs(seconds.into());
        match &mut self.stop {
            Some(stop) => {
                stop.answers.extend(answer);
                if deadline < stop.deadline {
                    (stop.deadline, stop.seconds) = (deadline, seconds);
                }
                return None;
            }
            None => {
                self.stop = Some(Stop {
                    deadline,
                    seconds,
                    answers: answer.into_iter().collect(),
                });
            }
        }
        if self.state == State::Starting || self.spec.on_start() == OnStart::Pause {
            // Nobody is there who could be asked, and nothing is lost.
            return Some(Finish::killed("the control socket, before the guest ran"));
        }
        // What stands still hears nothing.
        if self.state == State::Paused || self.changing.is_some() {
            self.guest.iter().for_each(super::Guest::resume);
        }
        self.state = State::Stopping;
        self.notify(Event::Stopping);
        self.lasting.agent.ask_poweroff();
        None
    }

    pub(super) fn info(&self) -> Info {
        Info {
            name: self.spec.name().to_owned(),
            uid: self.spec.uid().map(str::to_owned),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            accelerator: self.accelerator.accelerator,
            accelerator_reason: self.accelerator.reason.clone(),
            state: self.state,
            cpus: self.spec.cpus(),
            memory_bytes: self.spec.memory().bytes(),
            resets: self.resets,
            uptime_seconds: self.since.elapsed().as_secs(),
            agent: self.lasting.agent.is_open(),
            devices: self.devices(),
            disk_error: self.disk_error.clone(),
        }
    }

    fn count(&self, answer: Answer) {
        let mut all = Stats::default();
        all.counters.clone_from(&self.counted);
        all.counters
            .insert("console.output-bytes".to_owned(), self.lasting.hub.end());
        let on_counted = move |boot: Stats| {
            for (name, count) in boot.counters {
                let sum = all.counters.entry(name).or_default();
                *sum = sum.saturating_add(count);
            }
            all.gauges = boot.gauges;
            answer.send(Reply::Stats(all));
        };
        match &self.guest {
            Some(guest) => guest.count(on_counted),
            None => on_counted(Stats::default()),
        }
    }
}
