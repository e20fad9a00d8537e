//! What rvmm has besides its guest: the process's signals, its standard streams, and the sockets of its place.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use event_manager::{EventManager, SubscriberOps};
use rvmm_backends::console::{Hub, Server as ConsoleServer, Terminal};
use rvmm_backends::control::Server as ControlServer;
use rvmm_backends::signals::{Signals, Told};
use rvmm_control::RunDir;

use super::inbox::{Door, Happening, Inbox};
use crate::guest::Subscriber;

/// How rvmm behaves towards whoever started it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// What the guest prints goes to standard output, whether there is a run directory or not.
    pub prints: bool,
    /// At SIGTERM a guest whose agent listens is asked to switch itself off, and has so many seconds for it.
    pub grace: Option<u32>,
}

/// Opens the sockets and the log of a run directory.
pub(super) fn listen(
    run: &RunDir,
    (hub, console): (&Hub, &mut ConsoleServer),
    inbox: &Inbox,
    events: &mut EventManager<Subscriber>,
) -> anyhow::Result<Arc<Mutex<ControlServer<Door>>>> {
    hub.log_to(&run.console_log())
        .context("the console log cannot be written")?;
    console.listen(&run.console_socket())?;
    let server = ControlServer::listen(&run.control_socket(), Door(inbox.clone()))?;
    let server = Arc::new(Mutex::new(server));
    events.add_subscriber(Box::new(Arc::clone(&server)));
    Ok(server)
}

/// An event loop that hears the process's signals and the inbox. To be made before any other thread is.
pub(super) fn event_loop(inbox: &Inbox, hub: &Hub) -> anyhow::Result<EventManager<Subscriber>> {
    let mut events = EventManager::<Subscriber>::new()
        .map_err(io::Error::other)
        .context("no event loop")?;
    let (inbox, waker, hub) = (inbox.clone(), inbox.waker(), hub.clone());
    let signals = Signals::take(Box::new(move |told| match told {
        Told::End(name) => inbox.put(Happening::Kill(name)),
        // The terminal may be ours again.
        Told::Continued => hub.look_for_input(),
    }))?;
    events.add_subscriber(Box::new(signals));
    events.add_subscriber(Box::new(waker));
    Ok(events)
}

/// This terminal is a viewer, too; leaving it ends the machine.
pub(super) fn attach_terminal(console: &mut ConsoleServer, on_leave: Inbox) -> io::Result<()> {
    console.attach(
        Terminal::open()?,
        Box::new(move || on_leave.put(Happening::Kill("Ctrl-]"))),
    );
    Ok(())
}

/// One line for the user, once it is sure that the guest starts.
pub(super) fn say_what_runs(reason: &str) {
    // A raw terminal does not return the carriage by itself.
    let end = if io::stderr().is_terminal() { "\r\n" } else { "\n" };
    let text = format!("rvmm: {reason}; running in QEMU-TCG, which is slower{end}");
    // Nobody may be there to hear it.
    io::stderr().write_all(text.as_bytes()).ok();
}
