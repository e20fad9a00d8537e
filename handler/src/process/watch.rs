//! Tells when something happens to a machine, so that nobody has to look again and again.
//!
//! One small task for each living machine: it subscribes to rvmm's events and, when rvmm closes the connection,
//! waits until its process is gone. What happened is not passed on: whoever is woken looks for himself.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rvmm_control::frame::Lines;
use rvmm_control::message::{Call, Line, VERSION};
use rvmm_control::{Event, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::stop::{OBEY, has_ended};
use crate::vm::VmId;

/// The tasks that watch machines.
#[derive(Debug, Clone)]
pub struct Watch {
    watched: Arc<Mutex<HashSet<String>>>,
    wake: mpsc::UnboundedSender<VmId>,
}

// === impl Watch ===

impl Watch {
    /// Sends the VM of each event here. The channel has no bound, but a machine that is woken for is looked at
    /// before it is watched again, and a guest cannot reset faster than rvmm lets it.
    pub fn new(wake: mpsc::UnboundedSender<VmId>) -> Self {
        Self {
            watched: Arc::default(),
            wake,
        }
    }

    /// Watches a machine until it ends; one that is watched already is not watched twice.
    pub fn machine(&self, id: &VmId, control_socket: PathBuf) {
        if !self.set().insert(id.uid.clone()) {
            return;
        }
        let (watch, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            if let Err(error) = watch.follow(&id, &control_socket).await {
                tracing::debug!(vm = %id, uid = id.uid, %error, "no longer watched");
            }
            watch.set().remove(&id.uid);
            watch.wake(&id);
        });
    }

    /// Has a VM looked at.
    pub fn wake(&self, id: &VmId) {
        // Nobody listens any more only while the handler ends.
        self.wake.send(id.clone()).ok();
    }

    async fn follow(&self, id: &VmId, control_socket: &Path) -> io::Result<()> {
        let mut stream = UnixStream::connect(control_socket).await?;
        let process = stream.peer_cred()?.pid().and_then(Pid::from_raw);
        let process = process.ok_or(io::ErrorKind::NotFound)?;
        let process = pidfd_open(process, PidfdFlags::empty())?;
        let call = Call {
            v: VERSION,
            id: 1,
            request: Request::Subscribe,
        };
        let mut line = serde_json::to_vec(&call)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut lines = Lines::default();
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            lines.feed(buffer.get(..count).unwrap_or_default());
            while let Some(line) = lines.next_line().map_err(io::Error::other)? {
                match serde_json::from_slice(&line)? {
                    // What comes of the end is seen when the process is gone.
                    Line::Event {
                        event: Event::Ended(_),
                    }
                    | Line::Answer { .. } => {}
                    Line::Event { .. } => self.wake(id),
                }
            }
        }
        // The end was told; the process needs a moment to be gone, which nobody should see as a silent machine.
        tokio::task::spawn_blocking(move || has_ended(&process, OBEY))
            .await?
            .map(drop)
    }

    fn set(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        // A set of names is whole, whoever panicked while holding it.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
