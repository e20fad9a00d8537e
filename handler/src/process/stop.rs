//! Ends a machine: asks rvmm, and if it does not obey, the kernel.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rvmm_control::{Client, Liveness, RunDir};

use super::{Machines, stop_mark};
use crate::vm::VmId;

/// How long rvmm may take to end once it was told to; it only has to leave its loop and close its files.
pub(super) const OBEY: Duration = Duration::from_secs(5);

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
    /// Notes that the end was asked for, and ends the machine. One that is not running is not a mistake.
    /// Blocks, for ten seconds at most.
    ///
    /// # Errors
    /// Any [`StopError`].
    pub fn stop(&self, id: &VmId) -> Result<(), StopError> {
        let run = self.run_dir(id);
        File::create(stop_mark(&run)).map_err(StopError::Mark)?;
        let Some(process) = process_of(&run).map_err(StopError::Process)? else {
            return Ok(());
        };
        match Client::connect(&run.control_socket()).and_then(|mut client| client.kill()) {
            Ok(()) if has_ended(&process, OBEY).map_err(StopError::Process)? => return Ok(()),
            Ok(()) => tracing::warn!(vm = %id, uid = id.uid, "rvmm does not end, it is killed"),
            Err(error) => {
                tracing::warn!(vm = %id, uid = id.uid, %error, "rvmm does not answer, it is killed");
            }
        }
        match pidfd_send_signal(&process, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(StopError::Process(errno.into())),
        }
        let ended = has_ended(&process, DIE).map_err(StopError::Process)?;
        if ended { Ok(()) } else { Err(StopError::LivesOn) }
    }
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
