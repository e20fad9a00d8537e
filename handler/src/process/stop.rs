//! Ends a machine: asks rvmm, and if it does not obey, the kernel. Ends one that does not come up, too.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rvmm_control::{Client, EndReason, Ending, Liveness, RunDir};

use super::{Machines, log, stop_mark};
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

impl Machines {
    /// Notes that the end was asked for, and ends the machine, within its grace period where that is shorter than what
    /// rvmm gets anyway. One that is not running is not a mistake. Blocks, for ten seconds at most.
    ///
    /// # Errors
    /// Any [`StopError`].
    pub fn stop(&self, id: &VmId, grace: Duration) -> Result<(), StopError> {
        let run = self.run_dir(id);
        if !run.path().exists() {
            return Ok(());
        }
        File::create(stop_mark(&run)).map_err(StopError::Mark)?;
        let Some(process) = process_of(&run).map_err(StopError::Process)? else {
            return Ok(());
        };
        match Client::connect(&run.control_socket()).and_then(|mut client| client.kill()) {
            Ok(()) if has_ended(&process, patience(grace)).map_err(StopError::Process)? => return Ok(()),
            Ok(()) => tracing::warn!(vm = %id, uid = id.uid, "rvmm does not end, it is killed"),
            Err(error) => {
                tracing::warn!(vm = %id, uid = id.uid, %error, "rvmm does not answer, it is killed");
            }
        }
        kill(&process)
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
        let starting = writers_of(&log(&run)).map_err(StopError::Process)?;
        if starting.is_empty() {
            return Err(StopError::LivesOn);
        }
        starting.iter().try_for_each(kill)?;
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
fn process_of(run: &RunDir) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = holder(run)? else {
        return Ok(None);
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        // Still the holder after the handle was taken: so the handle is the holder's.
        Ok(process) if holder(run)? == Some(pid) => Ok(Some(process)),
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Who holds the run directory. Between its lock and its pid an rvmm needs a moment, in which it is no less alive.
fn holder(run: &RunDir) -> io::Result<Option<Pid>> {
    for _ in 0..PID_TRIES {
        match run.liveness()? {
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
    fn the_kill_comes_within_the_grace_period_or_sooner() {
        assert_eq!(patience(Duration::from_secs(2)), Duration::from_secs(2));
        assert_eq!(patience(Duration::from_secs(30)), OBEY);
        assert_eq!(patience(Duration::ZERO), AT_LEAST);
    }
}
