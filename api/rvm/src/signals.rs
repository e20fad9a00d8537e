//! The signals that would end us without a chance to tidy up: to restore a terminal, or to take a bar off it.

use anyhow::{Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// They are caught from the moment that this is made.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

// === impl Signals ===

impl Signals {
    /// Catches them.
    pub fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The name of the first that comes.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}

/// Does this, unless a signal ends it: then what it has begun on the screen is tidied up as it is dropped.
pub async fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut signals = Signals::new()?;
    tokio::select! {
        biased;
        name = signals.next() => bail!("ended by {name}"),
        done = work => done,
    }
}
