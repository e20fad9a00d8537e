//! Starts an rvmm that outlives us, and sees to it that its run directory tells how it ended.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use rvmm_control::{EndReason, Ending, Liveness, RunDir};
use tokio::process::{Child, Command};

use super::{Machines, log, stop_mark};
use crate::networks::client::Place;
use crate::status::bounded;
use crate::vm::VmId;

/// How much of rvmm's log is looked at for its last line.
const LOG_TAIL: u64 = 4 << 10;

/// How often, and with which pause, the start's lock is tried.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// rvmm could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Somebody starts it already.
    #[error("the machine is already being started")]
    Already,
    /// Its log cannot be written.
    #[error("'{0}' cannot be written")]
    Log(PathBuf, #[source] io::Error),
    /// The program cannot be run.
    #[error("'{0}' cannot be run")]
    Exec(PathBuf, #[source] io::Error),
}

impl Machines {
    /// Starts the machine of a run directory, in its network if it has one, inside a runtime; blocks for a moment. The child is to be waited for, then given to [`Machines::settle`].
    ///
    /// # Errors
    /// Any [`SpawnError`]; nothing runs then.
    pub fn start(&self, id: &VmId, network: Option<Place>) -> Result<Child, SpawnError> {
        let run = self.run_dir(id);
        let path = log(&run);
        let no_log = |error| SpawnError::Log(path.clone(), error);
        let mut options = File::options();
        options.append(true).create(true).mode(0o600);
        let output = options.open(&path).map_err(no_log)?;
        lock(&output).map_err(|error| match error {
            TryLockError::WouldBlock => SpawnError::Already,
            TryLockError::Error(error) => no_log(error),
        })?;
        // Since when it is about to come up; an earlier start may have made the file and got no further.
        output.set_modified(SystemTime::now()).map_err(no_log)?;
        let mut command = Command::new(&self.rvmm);
        command
            .arg("--spec")
            .arg(run.spec())
            .arg("--run-dir")
            .arg(run.path());
        command.current_dir("/").stdin(Stdio::null());
        command.stdout(output.try_clone().map_err(no_log)?).stderr(output);
        in_own_session(&mut command, network);
        command
            .spawn()
            .map_err(|error| SpawnError::Exec(self.rvmm.clone(), error))
    }

    /// After a child is gone: where it left no ending, writes one in its place, so that a machine that never came
    /// up is not taken for one that was never started.
    pub fn settle(&self, id: &VmId, status: io::Result<ExitStatus>) {
        let run = self.run_dir(id);
        if !matches!(run.liveness(), Ok(Liveness::Dead)) || !run.path().exists() {
            return;
        }
        let asked = stop_mark(&run).exists();
        let ending = Ending {
            reason: if asked {
                EndReason::Killed
            } else {
                EndReason::Failed
            },
            message: epitaph(&run, status),
        };
        // Claimed, so that no rvmm can come up in between.
        let written = run
            .claim()
            .map_err(io::Error::other)
            .and_then(|lock| run.write_ending(&lock, &ending));
        if let Err(error) = written {
            tracing::warn!(vm = %id, uid = id.uid, %error, "how the machine ended cannot be noted");
        }
    }
}

/// Takes the start's lock. It belongs to the open file, which rvmm keeps as its output, and not to us. Someone who
/// only looks whether it is held holds it himself for an instant, hence the retries.
fn lock(output: &File) -> Result<(), TryLockError> {
    for _ in 1..LOCK_TRIES {
        match output.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            other => return other,
        }
    }
    output.try_lock()
}

/// A session of its own: no signal that is meant for us or our terminal reaches rvmm. And the network of its guest, if it has
/// one: there its tap is, and nothing else of the node's.
#[expect(
    unsafe_code,
    reason = "std has no stable way to start a process in a session and namespaces of its own"
)]
fn in_own_session(command: &mut Command, network: Option<Place>) {
    let enter = move || {
        rustix::process::setsid()?;
        if let Some(place) = &network {
            place.enter()?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; setsid(2) and setns(2) are, and nothing is
    // allocated or locked.
    unsafe { command.pre_exec(enter) };
}

fn epitaph(run: &RunDir, status: io::Result<ExitStatus>) -> String {
    let how = match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("rvmm ended with status {code}"),
            (None, Some(signal)) => format!("rvmm was killed by signal {signal}"),
            (None, None) => "rvmm ended".to_owned(),
        },
        Err(error) => format!("rvmm cannot be waited for: {error}"),
    };
    match last_line(run) {
        Some(line) => format!("{how}: {line}"),
        None => how,
    }
}

fn last_line(run: &RunDir) -> Option<String> {
    let path = log(run);
    let length = fs::metadata(&path).ok()?.len();
    let mut file = File::open(&path).ok()?;
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL))).ok()?;
    let mut tail = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(bounded(line))
}
