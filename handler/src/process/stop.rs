//! Ends a machine: asks its guest, then rvmm, and if that does not obey, the kernel. Ends one that does not come up, too.
//!
//! ```text
//!   guest agent listens, grace left ─► rvmm asks the guest, cuts its power when the grace is over ─► looked at again
//!   nobody to be asked, no grace ────► rvmm cuts its power ─► it is waited for
//!   rvmm is deaf, or lives on ───────► SIGKILL
//! ```
//!
//! Since when an end is wished is the age of the mark in the run directory, so that it survives the handler.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rvmm_control::{Client, ClientError, EndReason, Ending, Liveness, RunDir, State};

use super::{Machines, log, own, stop_mark};
use crate::vm::VmId;

/// How long rvmm may take to end once it was told to; it only has to leave its loop and close its files.
pub const OBEY: Duration = Duration::from_secs(5);

/// How long it may take even where its VMI has no grace: a process that ends by itself leaves less behind.
const AT_LEAST: Duration = Duration::from_secs(1);

/// How long the kernel may take to end a process.
const DIE: Duration = Duration::from_secs(5);

/// How often, and with which pause, the pid of a process that holds the lock is looked for.
const PID_TRIES: u32 = 100;
const PID_PAUSE: Duration = Duration::from_millis(10);

/// The machine could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// That it was asked for cannot be noted.
    #[error("the machine's run directory cannot be written")]
    Mark(#[source] io::Error),
    /// It lives on.
    #[error("the machine's process does not end, not even by SIGKILL")]
    LivesOn,
    /// It cannot be found.
    #[error("the machine's process cannot be reached")]
    Process(#[source] io::Error),
}

/// How far the end of a machine has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It does not run.
    Gone,
    /// Its guest was asked, and has time.
    Leaving,
}

impl Machines {
    /// Notes that the end was asked for, and goes on to end the machine: to be called again until it is over. A guest that
    /// can be asked to switch itself off has the grace period for it, in which this returns at once. One that is not
    /// running is not a mistake. Blocks, for ten seconds at most.
    ///
    /// # Errors
    /// Any [`StopError`].
    pub fn stop(&self, id: &VmId, grace: Duration) -> Result<Stopped, StopError> {
        let run = self.run_dir(id);
        if !own(&run).exists() {
            return Ok(Stopped::Gone);
        }
        let (grace, since) = mark(&stop_mark(&run), grace).map_err(StopError::Mark)?;
        let Some(process) = process_of(&run, self.in_pods).map_err(StopError::Process)? else {
            return Ok(Stopped::Gone);
        };
        match Client::connect(&run.control_socket()).and_then(|client| ask(client, grace, since)) {
            Ok(Asked::Guest) => return Ok(Stopped::Leaving),
            Ok(Asked::Rvmm) if has_ended(&process, patience(grace)).map_err(StopError::Process)? => {
                return Ok(Stopped::Gone);
            }
            Ok(Asked::Rvmm) => tracing::warn!(vm = %id, uid = id.uid, "rvmm does not end, it is killed"),
            Err(error) => {
                tracing::warn!(vm = %id, uid = id.uid, %error, "rvmm does not answer, it is killed");
            }
        }
        kill(&process).map(|()| Stopped::Gone)
    }

    /// Ends an rvmm that was started and does not come up, and notes that as its end. Blocks, for some seconds.
    ///
    /// # Errors
    /// Any [`StopError`].
    pub fn give_up(&self, id: &VmId, waited: Duration) -> Result<(), StopError> {
        let run = self.run_dir(id);
        if run.liveness().map_err(StopError::Process)? != Liveness::Dead {
            return Ok(());
        }
        if !self.in_pods {
            let starting = writers_of(&log(&run)).map_err(StopError::Process)?;
            if starting.is_empty() {
                return Err(StopError::LivesOn);
            }
            starting.iter().try_for_each(kill)?;
        }
        // One in a pod ends with that; nothing is written where it could lead us elsewhere.
        let run = RunDir::new(own(&run));
        let ending = Ending {
            reason: EndReason::Failed,
            message: format!(
                "rvmm did not come up within {} s and was killed",
                waited.as_secs()
            ),
        };
        match run.claim() {
            Ok(lock) => run.write_ending(&lock, &ending).map_err(StopError::Mark),
            // Whoever waited for the child says how it ended.
            Err(_) => Ok(()),
        }
    }
}

/// Who is about to end the machine.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Its guest, within its grace period.
    Guest,
    /// rvmm, at once.
    Rvmm,
}

/// Asks for the end of a machine, for which this has been wished so long.
fn ask(mut client: Client, grace: Duration, since: Duration) -> Result<Asked, ClientError> {
    let info = client.info()?;
    let left = grace.saturating_sub(since);
    if info.state == State::Stopping && !grace.is_zero() && since < grace + OBEY {
        return Ok(Asked::Guest);
    }
    if !info.agent || left.is_zero() {
        return client.kill().map(|()| Asked::Rvmm);
    }
    // Whole seconds, and not one less than the guest was promised.
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    client.begin_stop(u32::try_from(seconds).unwrap_or(u32::MAX))?;
    Ok(Asked::Guest)
}

/// Notes that the end is wished, with which grace, and since when. The first wish counts, but for one without any grace.
fn mark(path: &Path, grace: Duration) -> io::Result<(Duration, Duration)> {
    match File::options().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            write!(file, "{}", grace.as_secs())?;
            Ok((grace, Duration::ZERO))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let noted = std::fs::read_to_string(path)?.parse().map(Duration::from_secs);
            // A clock that was set back makes the grace longer, never shorter.
            let since = path.metadata()?.modified()?.elapsed().unwrap_or_default();
            Ok((
                if grace.is_zero() {
                    grace
                } else {
                    noted.unwrap_or(grace)
                },
                since,
            ))
        }
        Err(error) => Err(error),
    }
}

/// How long an rvmm that was told to end is waited for before it is killed.
fn patience(grace: Duration) -> Duration {
    grace.clamp(AT_LEAST, OBEY)
}

fn kill(process: &OwnedFd) -> Result<(), StopError> {
    match pidfd_send_signal(process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(errno) => return Err(StopError::Process(errno.into())),
    }
    let ended = has_ended(process, DIE).map_err(StopError::Process)?;
    if ended { Ok(()) } else { Err(StopError::LivesOn) }
}

/// The processes whose output is this log: an rvmm that has not told its pid yet is known by nothing else.
fn writers_of(log: &Path) -> io::Result<Vec<OwnedFd>> {
    let log = log.canonicalize()?;
    let writes = |pid: Pid| {
        let output = format!("/proc/{}/fd/1", pid.as_raw_nonzero());
        std::fs::read_link(output).is_ok_and(|output| output == log)
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw).filter(|pid| writes(*pid)) else {
            continue;
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Still so after the handle was taken: so the handle is the one of that process.
            Ok(process) if writes(pid) => found.push(process),
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(found)
}

/// The process that holds the run directory, by a handle that no other process can ever take the place of.
fn process_of(run: &RunDir, in_pod: bool) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = holder(run, in_pod)? else {
        return Ok(None);
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // Still the holder after the handle was taken: so the handle is the holder's.
        Ok(process) if holder(run, in_pod)? == Some(pid) => Ok(Some(process)),
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Who holds the run directory. Between its lock and its pid an rvmm needs a moment, in which it is no less alive.
fn holder(run: &RunDir, in_pod: bool) -> io::Result<Option<Pid>> {
    for _ in 0..PID_TRIES {
        match run.liveness()? {
            // It knows itself by another number, in its pod.
            Liveness::Alive(_) if in_pod => {
                let peer = Client::connect(&run.control_socket()).and_then(|client| client.peer_pid());
                if let Ok(peer) = peer {
                    return Ok(peer.try_into().ok().and_then(Pid::from_raw));
                }
                std::thread::sleep(PID_PAUSE);
            }
            // That is us, while we note how it ended.
            Liveness::Alive(Some(pid)) if pid == std::process::id() => return Ok(None),
            Liveness::Alive(Some(pid)) => return Ok(pid.try_into().ok().and_then(Pid::from_raw)),
            Liveness::Alive(None) => std::thread::sleep(PID_PAUSE),
            Liveness::Ended(_) | Liveness::Dead => return Ok(None),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        "it does not write its pid",
    ))
}

/// Waits until a process is gone; tells whether it is. Blocks.
pub(super) fn has_ended(process: &OwnedFd, within: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_for_the_end_keeps_its_grace_and_its_age() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wish");
        let grace = Duration::from_secs;
        assert_eq!(mark(&path, grace(60)).unwrap(), (grace(60), Duration::ZERO));
        let long_ago = std::time::SystemTime::now() - grace(1000);
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        let (noted, since) = mark(&path, grace(30)).unwrap();
        assert!(noted == grace(60) && since >= grace(1000), "{noted:?} {since:?}");
        assert_eq!(mark(&path, Duration::ZERO).unwrap().0, Duration::ZERO);
    }

    #[test]
    fn the_kill_comes_within_the_grace_period_or_sooner() {
        assert_eq!(patience(Duration::from_secs(2)), Duration::from_secs(2));
        assert_eq!(patience(Duration::from_secs(30)), OBEY);
        assert_eq!(patience(Duration::ZERO), AT_LEAST);
    }
}
