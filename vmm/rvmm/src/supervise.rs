//! The life of a machine, from its first boot to its end, on the thread that also serves its sockets.
//!
//! ```text
//!             ┌────────────── pause, when it resets in a loop ◄──┐
//!             ▼                                                  │ on_reset: restart
//!   claim ─► boot ─► running ─► outcome ─┬─ reset ───────────────┤
//!                       │                │                       └ on_reset: exit ─► Ending (3)
//!                       │                ├─ poweroff ─► Ending (0)
//!                       │                └─ failed ───► Ending (1)
//!                       └─ killed: control socket, Ctrl-], signal ─► Ending
//! ```
//!
//! Whatever happens elsewhere (a vCPU's thread, QEMU, a signal, a client) arrives here as a [`Happening`] in one
//! queue, so that concurrent wishes have an order. Console and control socket live longer than a boot: a viewer sees
//! a reset as it sees a reboot of a real machine.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use rvmm_backends::console::{Hub, Server as ConsoleServer, Terminal};
use rvmm_backends::control::{Machine as Controlled, Notifier, Server as ControlServer};
use rvmm_backends::signals::Signals;
use rvmm_control::{EndReason, Ending, Event, Info, RunDir, RunLock, State};
use rvmm_spec::{OnReset, Outcome, Spec, wire};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::accelerator::Decision;
use crate::guest::{Guest, Subscriber};
use crate::throttle::Throttle;

/// How long viewers may take to fetch the last output when the machine is over.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// Something that the machine's life depends on.
#[derive(Debug)]
enum Happening {
    /// The boot with this number ended.
    Ended(u64, Outcome),
    /// Someone wants the machine to end, and who.
    Kill(&'static str),
}

/// Where happenings are put, from any thread.
#[derive(Clone)]
struct Inbox {
    sender: Sender<Happening>,
    wake: Arc<EventFd>,
}

/// Wakes the event loop; what woke it is in the queue.
struct Waker(Arc<EventFd>);

/// What the control socket may see and do.
struct Door {
    info: Arc<Mutex<Info>>,
    inbox: Inbox,
}

/// A machine's life.
pub struct Supervisor {
    spec: Spec,
    accelerator: Decision,
    place: Option<(RunDir, RunLock)>,
    work_dir: tempfile::TempDir,
    hub: Hub,
    console: Arc<Mutex<ConsoleServer>>,
    control: Option<Arc<Mutex<ControlServer<Door>>>>,
    notifier: Option<Notifier>,
    events: EventManager<Subscriber>,
    info: Arc<Mutex<Info>>,
    inbox: Inbox,
    queue: Receiver<Happening>,
    boots: u64,
    throttle: Throttle,
}

// === impl Inbox ===

impl Inbox {
    fn put(&self, happening: Happening) {
        // Both fail only when the supervisor is gone or is awake already.
        self.sender.send(happening).ok();
        self.wake.write(1).ok();
    }
}

// === impl Waker ===

impl MutEventSubscriber for Waker {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        // Refused only when the kernel has no memory left.
        ops.add(Events::new_raw(self.0.as_raw_fd(), EventSet::IN)).ok();
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        self.0.read().ok();
    }
}

// === impl Door ===

impl Controlled for Door {
    fn info(&self) -> Info {
        lock(&self.info).clone()
    }

    fn kill(&mut self) {
        self.inbox.put(Happening::Kill("the control socket"));
    }
}

// === impl Supervisor ===

impl Supervisor {
    /// Claims the run directory and opens the sockets, or, without one, this terminal.
    ///
    /// # Errors
    /// The machine runs already, or a socket cannot be made.
    pub fn new(spec: Spec, accelerator: Decision, run_dir: Option<RunDir>) -> anyhow::Result<Self> {
        let (sender, queue) = mpsc::channel();
        let inbox = Inbox {
            sender,
            wake: Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?),
        };
        let mut events = event_loop(&inbox)?;
        let info = Arc::new(Mutex::new(first_info(&spec, &accelerator)));
        let hub = Hub::new()?;
        let mut console = ConsoleServer::new(hub.clone())?;
        let place = run_dir
            .map(|run| run.claim().map(|lock| (run, lock)))
            .transpose()?;
        let mut control = None;
        if let Some((run, _)) = &place {
            write_spec(run, &spec)?;
            hub.log_to(&run.console_log())
                .context("the console log cannot be written")?;
            console.listen(&run.console_socket())?;
            let door = Door {
                info: Arc::clone(&info),
                inbox: inbox.clone(),
            };
            let server = Arc::new(Mutex::new(ControlServer::listen(&run.control_socket(), door)?));
            events.add_subscriber(Box::new(Arc::clone(&server)));
            control = Some(server);
        }
        if place.is_none() || io::stdin().is_terminal() {
            let on_leave = inbox.clone();
            console.attach(
                Terminal::open()?,
                Box::new(move || on_leave.put(Happening::Kill("Ctrl-]"))),
            );
        }
        let notifier = control.as_ref().map(|server| lock(server).notifier());
        let console = Arc::new(Mutex::new(console));
        events.add_subscriber(Box::new(Arc::clone(&console)));
        let work_dir = tempfile::Builder::new()
            .prefix("rvmm-")
            .tempdir()
            .context("no temporary folder")?;
        let throttle = Throttle::default();
        Ok(Self {
            spec,
            accelerator,
            place,
            work_dir,
            hub,
            console,
            control,
            notifier,
            events,
            info,
            inbox,
            queue,
            boots: 0,
            throttle,
        })
    }

    /// Runs the machine to its end, writes the ending down and shows all output.
    pub fn run(mut self) -> Finish {
        let finish = self
            .live()
            .unwrap_or_else(|error| Finish::failed(format!("{error:#}")));
        self.set_state(State::Ended);
        let patience = Instant::now() + LAST_OUTPUT;
        lock(&self.console).drain(patience);
        if let Some((run, lock)) = &self.place {
            if let Err(error) = run.write_ending(lock, &finish.ending) {
                tracing::error!(%error, "how the machine ended cannot be written down");
            }
            run.remove_sockets(lock);
        }
        self.notify(&Event::Ended(finish.ending.clone()));
        if let Some(control) = &self.control {
            lock(control).drain(patience);
        }
        finish
    }

    fn live(&mut self) -> anyhow::Result<Finish> {
        loop {
            let guest = self.boot()?;
            let started = Instant::now();
            let happening = self.wait(None)?;
            guest.stop(&mut self.events);
            match happening {
                Some(Happening::Ended(_, Outcome::Reset)) if self.spec.on_reset() == OnReset::Restart => {
                    lock(&self.info).resets += 1;
                    self.notify(&Event::Reset);
                    self.set_state(State::Starting);
                    if let Some(finish) = self.pause(started.elapsed())? {
                        return Ok(finish);
                    }
                }
                Some(happening) => return Ok(Finish::of(happening)),
                None => {}
            }
        }
    }

    fn boot(&mut self) -> anyhow::Result<Guest> {
        self.boots += 1;
        let (inbox, boot) = (self.inbox.clone(), self.boots);
        let on_end = Box::new(move |outcome| inbox.put(Happening::Ended(boot, outcome)));
        let work_dir = self.work_dir.path();
        let guest = Guest::start(
            self.accelerator.accelerator,
            &self.spec,
            &self.hub,
            work_dir,
            &mut self.events,
            on_end,
        )?;
        self.set_state(State::Running);
        self.notify(&Event::Running);
        if boot == 1 && self.accelerator.notable {
            self.say_what_runs();
        }
        Ok(guest)
    }

    /// One line for the user, once it is sure that the guest starts, and before any of its output is shown.
    fn say_what_runs(&self) {
        // A raw terminal does not return the carriage by itself.
        let end = if io::stderr().is_terminal() { "\r\n" } else { "\n" };
        let text = format!(
            "rvmm: {}; running in QEMU-TCG, which is slower{end}",
            self.accelerator.reason
        );
        // Nobody may be there to hear it.
        io::stderr().write_all(text.as_bytes()).ok();
    }

    /// Waits before a guest that resets in a loop is booted again; its sockets are served meanwhile.
    fn pause(&mut self, ran: Duration) -> anyhow::Result<Option<Finish>> {
        let pause = self.throttle.after(ran);
        if pause.is_zero() {
            return Ok(None);
        }
        let text = format!(
            "the guest was reset {} times in quick succession; it starts again in {} s",
            self.throttle.quick(),
            pause.as_secs()
        );
        tracing::warn!("{text}");
        self.hub.write(format!("\r\n[rvmm: {text}]\r\n").as_bytes());
        Ok(self.wait(Some(Instant::now() + pause))?.map(Finish::of))
    }

    /// Serves events until something happens to this boot, or until a deadline.
    fn wait(&mut self, deadline: Option<Instant>) -> anyhow::Result<Option<Happening>> {
        loop {
            while let Ok(happening) = self.queue.try_recv() {
                if !matches!(happening, Happening::Ended(boot, _) if boot != self.boots) {
                    return Ok(Some(happening));
                }
            }
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

    fn set_state(&self, state: State) {
        lock(&self.info).state = state;
    }

    fn notify(&self, event: &Event) {
        self.notifier
            .iter()
            .for_each(|notifier| notifier.notify(event.clone()));
    }
}

/// An event loop that hears the process's signals and the inbox. To be made before any other thread is.
fn event_loop(inbox: &Inbox) -> anyhow::Result<EventManager<Subscriber>> {
    let mut events = EventManager::<Subscriber>::new()
        .map_err(io::Error::other)
        .context("no event loop")?;
    let on_signal = inbox.clone();
    let signals = Signals::take(Box::new(move |name| on_signal.put(Happening::Kill(name))))?;
    events.add_subscriber(Box::new(signals));
    events.add_subscriber(Box::new(Waker(Arc::clone(&inbox.wake))));
    Ok(events)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn first_info(spec: &Spec, accelerator: &Decision) -> Info {
    Info {
        name: spec.name().to_owned(),
        uid: spec.uid().map(str::to_owned),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        accelerator: accelerator.accelerator,
        accelerator_reason: accelerator.reason.clone(),
        state: State::Starting,
        cpus: spec.cpus(),
        memory_bytes: spec.memory().bytes(),
        resets: 0,
    }
}

/// Leaves the machine's description in its run directory, unless it came from there.
fn write_spec(run: &RunDir, spec: &Spec) -> anyhow::Result<()> {
    let path: PathBuf = run.spec();
    let json = wire::Document::from(spec).to_json()?;
    if std::fs::read_to_string(&path).is_ok_and(|there| there == json) {
        return Ok(());
    }
    std::fs::write(&path, json).with_context(|| format!("'{}' cannot be written", path.display()))
}

/// How a machine's life ended, and with which status rvmm does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// For `exit.json` and for people.
    pub ending: Ending,
    /// The process's exit status.
    pub status: u8,
}

// === impl Finish ===

impl Finish {
    /// The machine failed.
    pub fn failed(message: String) -> Self {
        Self::from(EndReason::Failed, message)
    }

    fn from(reason: EndReason, message: impl Into<String>) -> Self {
        Self {
            ending: Ending {
                reason,
                message: message.into(),
            },
            status: reason.exit_status(),
        }
    }

    fn of(happening: Happening) -> Self {
        match happening {
            Happening::Ended(_, Outcome::Poweroff) => {
                Self::from(EndReason::Poweroff, "the guest switched itself off")
            }
            Happening::Ended(_, Outcome::Reset) => Self::from(EndReason::Reset, "the guest was reset"),
            Happening::Ended(_, Outcome::Failed(why)) => Self::failed(why),
            Happening::Kill(who) => {
                let signal = [("SIGHUP", 1), ("SIGINT", 2), ("SIGQUIT", 3), ("SIGTERM", 15)]
                    .iter()
                    .find(|(name, _)| *name == who);
                let finish = Self::from(EndReason::Killed, format!("ended by {who}"));
                Self {
                    status: signal.map_or(finish.status, |(_, number)| 128 + number),
                    ..finish
                }
            }
        }
    }
}
