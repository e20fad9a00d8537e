//! The life of a machine, from its first boot to its end, on the thread that also serves its sockets.
//!
//! ```text
//!              ┌─────────── throttle, when it resets in a loop ◄──┐
//!              ▼                                                  │ on_reset: restart, or a client's reset
//!   claim ─► starting ─► running ◄─► paused (at once: --paused)   │
//!     place      │          ├─ reset ────────────────────────────-┤
//!                │          ├─ stop ─► stopping: the agent is asked, the deadline kills
//!                │          │             │                       └ on_reset: exit ─► Finish (3)
//!                └──────────┴─────────────┴─ poweroff ─► Finish (0), failed ─► Finish (1)
//!                                            killed: control socket, Ctrl-], signal ─► Finish
//! ```
//!
//! Whatever happens elsewhere (a vCPU's thread, QEMU, a signal, a client) arrives here as a [`Happening`] in one
//! queue, so that concurrent wishes have an order; which of them is taken in which state stands in
//! `rvmm_control::transition`. Nothing here waits but for the next happening: a start that takes long holds up neither
//! signals nor clients. Console and control socket live longer than a boot: a viewer sees a reset as it sees a reboot of
//! a real machine.

mod disk;
mod finish;
mod inbox;
mod outside;
mod place;
mod plug;
mod reset;
mod serve;
mod watchdog;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use event_manager::{EventManager, SubscriberOps};
use rvmm_backends::console::{Hub, Server as ConsoleServer};
use rvmm_backends::control::{Answer, Notifier, Server as ControlServer};
use rvmm_backends::plugged::Plugged;
use rvmm_backends::vhost_user::Servers;
use rvmm_backends::{Agent, Lasting, News, OnNews};
use rvmm_control::{DiskError, EndReason, Event, How, Request, State};
use rvmm_spec::{OnReset, OnStart, Outcome, Spec};

use crate::accelerator::Decision;
use crate::guest::{Guest, Subscriber, Wanted};
use crate::startup;
use crate::throttle::Throttle;
use crate::walls::Backend;
pub use finish::Finish;
use inbox::{Door, Happening, Inbox};
pub use outside::Manner;
pub use place::Place;
use plug::{OnItsWay, PluggedIn};
use serve::Stop;

/// How long viewers may take to fetch the last output when the machine is over.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// How long after its start a guest is taken to have booted.
const SETTLED: Duration = Duration::from_secs(10);

/// A machine's life.
pub struct Supervisor<'a> {
    /// The machine as it is to boot next.
    spec: Spec,
    accelerator: Decision,
    place: Option<&'a Place>,
    lasting: Lasting,
    console: Arc<Mutex<ConsoleServer>>,
    control: Option<Arc<Mutex<ControlServer<Door>>>>,
    notifier: Option<Notifier>,
    backend: Backend,
    events: EventManager<Subscriber>,
    inbox: Inbox,
    queue: Receiver<Happening>,
    state: State,
    guest: Option<Guest>,
    since: Instant,
    /// When this boot began, and which one it is.
    started: Instant,
    boots: u64,
    resets: u64,
    throttle: Throttle,
    /// When the guest is to be booted again.
    again: Option<Instant>,
    /// When what the boot needed is given back.
    settled: Option<Instant>,
    stop: Option<Stop>,
    /// The state that the vCPUs were asked for, and who asked.
    changing: Option<(State, Answer)>,
    /// What the machine is paused for, until it goes on.
    disk_error: Option<DiskError>,
    /// What is being plugged in or pulled out.
    on_its_way: Option<OnItsWay>,
    /// Requests that wait for either.
    line: VecDeque<(Request, Vec<OwnedFd>, Answer)>,
    /// What was plugged in.
    plugged: PluggedIn,
    /// What earlier boots counted.
    counted: BTreeMap<String, u64>,
    /// How long a guest has when rvmm is told to terminate.
    grace: Option<u32>,
}

// === impl Supervisor ===

impl<'a> Supervisor<'a> {
    /// Opens the sockets in its place, or, without one, this terminal. To be called before any thread is started.
    ///
    /// # Errors
    /// A socket cannot be made, or a file not written.
    pub fn new(
        spec: Spec,
        accelerator: Decision,
        place: Option<&'a Place>,
        manner: Manner,
    ) -> anyhow::Result<Self> {
        let (inbox, queue) = Inbox::new()?;
        let hub = Hub::new()?;
        let mut events = outside::event_loop(&inbox, &hub)?;
        let mut console = ConsoleServer::new(hub.clone())?;
        let open = |place: &Place| {
            place.describe(&spec)?;
            outside::listen(place.run(), (&hub, &mut console), &inbox, &mut events)
        };
        let control = place.map(open).transpose()?;
        if place.is_none() || manner.prints || io::stdin().is_terminal() {
            outside::attach_terminal(&mut console, inbox.clone())?;
        }
        let notifier = control.as_ref().map(|server| lock(server).notifier());
        let console = Arc::new(Mutex::new(console));
        events.add_subscriber(Box::new(Arc::clone(&console)));
        let on_open = inbox.clone();
        let agent = Agent::new(Box::new(move |open| on_open.put(Happening::Agent(open))))?;
        let backend = Backend::confine(&spec, accelerator.accelerator, place)?;
        let now = Instant::now();
        Ok(Self {
            backend,
            spec,
            accelerator,
            place,
            lasting: Lasting {
                hub,
                agent,
                servers: Servers::default(),
            },
            console,
            control,
            notifier,
            events,
            inbox,
            queue,
            state: State::Starting,
            guest: None,
            since: now,
            started: now,
            boots: 0,
            resets: 0,
            throttle: Throttle::default(),
            again: None,
            settled: None,
            stop: None,
            changing: None,
            disk_error: None,
            on_its_way: None,
            line: VecDeque::new(),
            plugged: PluggedIn::default(),
            counted: BTreeMap::new(),
            grace: manner.grace,
        })
    }

    /// Runs the machine to its end, writes the ending down and shows all output.
    pub fn run(mut self) -> Finish {
        let finish = self
            .live()
            .unwrap_or_else(|error| Finish::failed(format!("{error:#}")));
        let was_told = self.lasting.agent.was_told();
        self.end_guest();
        self.state = State::Ended;
        let patience = Instant::now() + LAST_OUTPUT;
        lock(&self.console).drain(patience);
        self.place.iter().for_each(|place| place.close(&finish.ending));
        if let Some(stop) = self.stop.take() {
            let by_guest = finish.ending.reason == EndReason::Poweroff;
            stop.answer(if by_guest { How::Asked } else { How::Killed }, was_told);
        }
        self.changing = None;
        self.on_its_way = None;
        self.line.clear();
        self.notify(Event::Ended(finish.ending.clone()));
        if let Some(control) = &self.control {
            lock(control).drain(patience);
        }
        finish
    }

    fn live(&mut self) -> anyhow::Result<Finish> {
        self.boot()?;
        loop {
            let finish = match self.next()? {
                Some(happening) => self.take(happening)?,
                None => self.on_deadline()?,
            };
            if let Some(finish) = finish {
                return Ok(finish);
            }
        }
    }

    fn take(&mut self, happening: Happening) -> anyhow::Result<Option<Finish>> {
        match happening {
            Happening::Kill(who) => Ok(self.told_to_end(who)),
            Happening::Call(request, opened, answer) => self.call(request, opened, answer),
            Happening::Plugged(boot, result) if boot == self.boots => self.rearranged(result),
            Happening::Plugged(..) => Ok(None),
            Happening::Agent(open) => {
                self.notify(Event::Agent(open));
                Ok(None)
            }
            // Of a boot that is over.
            Happening::News(boot, _) if boot != self.boots => Ok(None),
            Happening::News(_, News::Running) => {
                self.disk_error = None;
                self.begun();
                self.notify(Event::Running);
                self.changed(State::Running)
            }
            Happening::News(_, News::Paused) => {
                self.notify(Event::Paused);
                self.changed(State::Paused)
            }
            Happening::News(_, News::Watchdog) => self.bitten(),
            Happening::News(_, News::DiskFailed(error)) => {
                self.disk_failed(error);
                Ok(None)
            }
            Happening::News(_, News::Ended(outcome)) => self.ended(outcome),
        }
    }

    /// The guest ended by itself.
    fn ended(&mut self, outcome: Outcome) -> anyhow::Result<Option<Finish>> {
        let again = outcome == Outcome::Reset && self.spec.on_reset() == OnReset::Restart;
        if self.stop.is_some() && outcome == Outcome::Reset {
            // It went down as it was asked to, by the wrong door.
            return Ok(Some(Finish::by_guest(Outcome::Poweroff)));
        }
        if !again {
            return Ok(Some(Finish::by_guest(outcome)));
        }
        self.restart()?;
        Ok(None)
    }

    fn boot(&mut self) -> anyhow::Result<()> {
        self.boots += 1;
        self.started = Instant::now();
        let (inbox, boot) = (self.inbox.clone(), self.boots);
        let notable = self.accelerator.notable && boot == 1;
        let reason = Mutex::new(notable.then(|| self.accelerator.reason.clone()));
        let on_news: OnNews = Arc::new(move |news| {
            // Here, so that it stands before any output of the guest; and once.
            if matches!(news, News::Running | News::Paused) {
                lock(&reason)
                    .take()
                    .iter()
                    .for_each(|reason| outside::say_what_runs(reason));
            }
            inbox.put(Happening::News(boot, news));
        });
        let plugged = self.plugged.devices.iter().map(Plugged::copy);
        let wanted = Wanted {
            spec: &self.spec,
            plugged: plugged.collect::<Result<_, _>>()?,
        };
        let guest = Guest::start(&self.backend, wanted, &self.lasting, &mut self.events, &on_news)?;
        self.guest = Some(guest);
        self.settled = Some(Instant::now() + SETTLED);
        Ok(())
    }

    /// Somebody is in the machine from now on. Where it stood still until now, it boots only now.
    fn begun(&mut self) {
        if self.spec.on_start() == OnStart::Pause {
            self.spec = self.spec.begun();
            self.settled = Some(Instant::now() + SETTLED);
        }
    }

    fn end_guest(&mut self) {
        if let Some(guest) = self.guest.take() {
            guest.add_counters(&mut self.counted);
            guest.stop(&mut self.events);
        }
        self.lasting.agent.reset();
    }

    /// The time has come to boot again, to end what was to stop, or to give back what the boot needed.
    fn on_deadline(&mut self) -> anyhow::Result<Option<Finish>> {
        let now = Instant::now();
        if let Some(stop) = self.stop.as_ref().filter(|stop| stop.deadline <= now) {
            return Ok(Some(stop.overdue(self.lasting.agent.was_told())));
        }
        if self.settled.is_some_and(|settled| settled <= now) {
            self.settled = None;
            startup::forget();
        }
        if self.again.is_some_and(|again| again <= now) {
            self.again = None;
            self.boot()?;
        }
        Ok(None)
    }

    /// Says something to whoever looks at the console or the log.
    fn say(&self, text: &str) {
        tracing::warn!("{text}");
        self.lasting
            .hub
            .write(format!("\r\n[rvmm: {text}]\r\n").as_bytes());
    }

    /// Serves events until something happens, or until the next deadline.
    fn next(&mut self) -> anyhow::Result<Option<Happening>> {
        loop {
            if let Ok(happening) = self.queue.try_recv() {
                return Ok(Some(happening));
            }
            let stop = self.stop.as_ref().map(|stop| stop.deadline);
            let deadline = self.again.into_iter().chain(self.settled).chain(stop).min();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            let millis = left.map_or(-1, |left| {
                i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1)
            });
            self.events
                .run_with_timeout(millis)
                .map_err(io::Error::other)
                .context("the event loop failed")?;
        }
    }

    fn notify(&self, event: Event) {
        if let Some(notifier) = &self.notifier {
            notifier.notify(event);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
