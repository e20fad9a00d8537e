//! Guests whose file systems are frozen for a time: a backup that never comes back must not hold a guest for ever.
//!
//! ```text
//!   freeze for a time ─► `thaw-at` in the machine's run directory ─► the guest is told ─► it is time ─► thawed ─► the file goes
//!                          └─ a handler that starts goes on from there
//! ```
//!
//! When it is time stands in the file, so that neither our end nor that of whoever asked keeps a guest frozen. It goes with the run
//! directory, and with whoever thaws the guest before.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rvm_server::agent::Command;
use rvm_server::{AgentError, Unreachable};
use rvmm_control::RunDir;
use tokio::task::AbortHandle;

use crate::asking::say;
use crate::process::{Machines, own};
use crate::steps::chain;

/// The file that says when.
const MARK: &str = "thaw-at";
/// Longest such file.
const MAX_MARK: u64 = 64;
/// Pause before an agent is told again that did not hear, and how often it is.
const AGAIN: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 60;

/// The guests of this node that will be thawed, by the UIDs of their instances.
#[derive(Debug, Clone, Default)]
pub struct Thaws(Arc<Mutex<HashMap<String, AbortHandle>>>);

// === impl Thaws ===

impl Thaws {
    /// Goes on where a former handler ended.
    pub fn resume(&self, machines: Arc<Machines>) {
        let thaws = self.clone();
        tokio::spawn(async move {
            let marked = tokio::task::spawn_blocking(move || marked(&machines)).await;
            for (run, uid, at) in marked.unwrap_or_default() {
                thaws.wait(run, &uid, at);
            }
        });
    }

    /// Has this guest thawed after this time, in place of what was to be done before. What is noted here holds from now on.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn note(&self, run: RunDir, uid: &str, time: Duration) -> io::Result<()> {
        let time = SignedDuration::try_from(time).map_err(io::Error::other)?;
        let at = Timestamp::now().checked_add(time).map_err(io::Error::other)?;
        self.stop(uid);
        write(&mark(&run), at)?;
        self.wait(run, uid, at);
        Ok(())
    }

    /// Nothing is to be done any more.
    pub(crate) fn forget(&self, run: &RunDir, uid: &str) {
        self.stop(uid);
        remove(run);
    }

    fn stop(&self, uid: &str) {
        if let Some(task) = self.lock().remove(uid) {
            task.abort();
        }
    }

    fn wait(&self, run: RunDir, uid: &str, at: Timestamp) {
        let (thaws, of) = (self.clone(), uid.to_owned());
        let mut waiting = self.lock();
        let task = tokio::spawn(async move {
            // A time that is past is now.
            let left = at.duration_since(Timestamp::now());
            tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
            thaw(&run, &of).await;
            thaws.lock().remove(&of);
        });
        if let Some(before) = waiting.insert(uid.to_owned(), task.abort_handle()) {
            before.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, AbortHandle>> {
        // Every entry is whole, whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the guest until it has heard.
async fn thaw(run: &RunDir, uid: &str) {
    for _ in 0..ATTEMPTS {
        let socket = run.control_socket();
        let told = tokio::task::spawn_blocking(move || say(&socket, Command::Thaw)).await;
        match told {
            Ok(Ok(_)) => return remove(run),
            Ok(Err(AgentError::Unreachable(Unreachable::Unavailable(_)) | AgentError::Absent))
                if run.path().exists() => {}
            Ok(Err(error)) => {
                tracing::warn!(uid, error = chain(&error), "the guest is not thawed");
                return remove(run);
            }
            // We end; whoever comes after us goes on.
            Err(_) => return,
        }
        tokio::time::sleep(AGAIN).await;
    }
    tracing::warn!(uid, "the guest is not thawed: its agent does not answer");
    remove(run);
}

/// The machines whose guests are to be thawed, and when.
fn marked(machines: &Machines) -> Vec<(RunDir, String, Timestamp)> {
    let all = machines.all().unwrap_or_else(|error| {
        tracing::warn!(
            error = chain(&error),
            "guests that a former handler froze may stay so"
        );
        Default::default()
    });
    let marked = all.into_iter().filter_map(|id| {
        let run = machines.run_dir(&id);
        let at = read(&mark(&run))?;
        Some((run, id.uid, at))
    });
    marked.collect()
}

fn mark(run: &RunDir) -> PathBuf {
    own(run).join(MARK)
}

/// Appears whole, and is on disk before the guest is told.
fn write(path: &Path, at: Timestamp) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&fresh)?;
    file.write_all(at.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(fresh, path)
}

fn read(path: &Path) -> Option<Timestamp> {
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(MAX_MARK)
        .read_to_string(&mut text)
        .ok()?;
    // What is no time any more is long past.
    Some(text.parse().unwrap_or(Timestamp::MIN))
}

fn remove(run: &RunDir) {
    // It may never have been there, or be gone with its machine.
    let _ = fs::remove_file(mark(run));
}
