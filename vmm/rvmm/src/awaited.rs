//! An rvmm that is started without a machine and waits for one: as the process of a container, say, which none of the machine's
//! files are mounted into.
//!
//! ```text
//!   listen ─► a machine comes (rvmm_control::launch) ─► the folder is ours ─► it is answered ─► as any other machine
//!     └─► SIGTERM: nothing was begun, nothing is left
//! ```
//!
//! Only one machine is ever taken: nobody listens from then on. What is no machine, or comes from somebody whom we do not obey,
//! is refused, and the next is waited for.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use rvmm_backends::signals::{Signals, Told};
use rvmm_backends::socket;
use rvmm_control::RunDir;
use rvmm_control::launch::{self, Received, SOCKET};

use crate::args::Order;
use crate::supervise::{Finish, Manner, Place};

/// Waits for a machine and runs it to its end; at SIGTERM its guest has this grace.
///
/// # Errors
/// Nobody can be waited for, or the folder is another's.
pub fn live(folder: &Path, grace: Option<u32>) -> anyhow::Result<Finish> {
    let received = match wait(folder)? {
        Came::Machine(received) => *received,
        Came::End(signal) => return Ok(Finish::killed(signal)),
    };
    let Received { spec, files, giver } = received;
    let place = match Place::claim(RunDir::new(folder)) {
        Ok(place) => place,
        Err(error) => {
            // Whoever gave it may be gone.
            giver.refused(&format!("{error:#}")).ok();
            return Err(error);
        }
    };
    if giver.taken().is_err() {
        tracing::info!("whoever handed over the machine did not wait for the answer");
    }
    let manner = Manner { prints: true, grace };
    let order = Order { spec, dump_dtb: None };
    let finish = match crate::start(order, Some(&place), manner) {
        Ok(Some(supervisor)) => supervisor.run(),
        Ok(None) => Finish::failed("there was nothing to run".to_owned()),
        Err(error) => {
            let finish = Finish::failed(format!("{error:#}"));
            place.close(&finish.ending);
            finish
        }
    };
    // Until here every boot opened them anew.
    drop(files);
    Ok(finish)
}

/// What the waiting ended with.
enum Came {
    Machine(Box<Received>),
    End(&'static str),
}

/// Where the event loop puts it.
type Arrival = Arc<Mutex<Option<Came>>>;

/// Listens, and looks at whoever comes, until one brings a machine.
fn wait(folder: &Path) -> anyhow::Result<Came> {
    let path = folder.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("'{}' cannot be replaced", path.display()));
        }
        _ => {}
    }
    let arrival = Arrival::default();
    let mut events = EventManager::<Box<dyn MutEventSubscriber>>::new()
        .map_err(io::Error::other)
        .context("no event loop")?;
    // The first process of a container has no signal that it does not take.
    let told = Arc::clone(&arrival);
    let signals = Signals::take(Box::new(move |signal| {
        if let Told::End(name) = signal {
            put(&told, Came::End(name));
        }
    }))?;
    events.add_subscriber(Box::new(signals));
    events.add_subscriber(Box::new(Door {
        listener: socket::listen(&path)?,
        arrival: Arc::clone(&arrival),
    }));
    loop {
        events
            .run()
            .map_err(io::Error::other)
            .context("the event loop failed")?;
        let came = arrival.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(came) = came {
            // Whoever comes later finds nobody. One that cannot be removed is found dead.
            fs::remove_file(&path).ok();
            return Ok(came);
        }
    }
}

/// Where machines come in.
struct Door {
    listener: UnixListener,
    arrival: Arrival,
}

impl MutEventSubscriber for Door {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        // Refused only when the kernel has no memory left.
        ops.add(Events::new_raw(self.listener.as_raw_fd(), EventSet::IN))
            .ok();
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        match launch::receive(stream) {
            Ok(received) => put(&self.arrival, Came::Machine(Box::new(received))),
            Err(error) => tracing::warn!("no machine was brought: {error}"),
        }
    }
}

/// The first that came counts.
fn put(arrival: &Arrival, came: Came) {
    let mut arrival = arrival.lock().unwrap_or_else(PoisonError::into_inner);
    arrival.get_or_insert(came);
}
