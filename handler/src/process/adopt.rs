//! Sees what is there: a machine's state from its run directory, and whose run directories there are.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rvmm_control::{Client, ClientError, Info, Liveness, Refusal, RefusalCode, RunDir};

use super::{Machines, Owner, log, own, stop_mark};
use crate::vm::{Machine, VmId, is_uid};

/// Largest file of ours that is read.
const MAX_FILE: u64 = 64 << 10;

/// Largest spec that is read; a machine's disks and networks are bounded, so it is far smaller.
const MAX_SPEC: u64 = 1 << 20;

/// Where rvmm's own log is cut; what it said last is lost then, which is better than a full disk.
const MAX_LOG: u64 = 1 << 20;

/// A run directory cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The file system.
    #[error("'{0}' cannot be read")]
    Io(PathBuf, #[source] io::Error),
    /// Made for another cluster or node.
    #[error("'{0}' was made for '{1}' and is left alone")]
    NotOurs(PathBuf, String),
}

impl Machines {
    /// What is seen of a machine now. Blocks while an rvmm is asked.
    ///
    /// # Errors
    /// Any [`ObserveError`].
    pub fn observe(&self, id: &VmId) -> Result<Machine, ObserveError> {
        let run = self.run_dir(id);
        let folder = own(&run);
        let failed = |error| ObserveError::Io(folder.to_owned(), error);
        if !folder.exists() {
            return Ok(Machine::Absent);
        }
        match owner(folder).map_err(failed)? {
            Some(owner) if owner.home != self.home => {
                return Err(ObserveError::NotOurs(folder.to_owned(), owner.home));
            }
            _ => {}
        }
        if self.in_pods {
            return self.observe_in_pod(id, &run).map_err(failed);
        }
        // In this order: a machine that had its pid, or its start's lock, before it was seen without a living
        // process cannot be one that is just coming up.
        let had_pid = fs::metadata(run.path().join("pid")).is_ok_and(|file| file.len() > 0);
        let launching = launched_at(&log(&run)).map_err(failed)?;
        Ok(match (run.liveness().map_err(failed)?, launching) {
            (Liveness::Alive(pid), _) => {
                ask(&run, id, pid).map_or(Machine::Silent, |info| Machine::Alive(Box::new(info)))
            }
            (Liveness::Ended(ending), _) => Machine::Ended(ending),
            (Liveness::Dead, _) if had_pid => Machine::Lost,
            (Liveness::Dead, Some(since)) => Machine::Launching(since),
            (Liveness::Dead, None) => Machine::Prepared,
        })
    }

    /// The same of a machine that was handed to a pod, or is about to be.
    fn observe_in_pod(&self, id: &VmId, run: &RunDir) -> io::Result<Machine> {
        // That it never came up is noted by us, where only we write.
        if let Liveness::Ended(ending) = RunDir::new(own(run)).liveness()? {
            return Ok(Machine::Ended(ending));
        }
        let handed = match fs::symlink_metadata(run.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Machine::Prepared),
            handed => handed?.modified()?,
        };
        if !run.path().exists() {
            // The volume went with the pod.
            return Ok(Machine::Lost);
        }
        let had_pid = fs::symlink_metadata(run.path().join("pid")).is_ok_and(|file| file.len() > 0);
        Ok(match run.liveness()? {
            // Its number is another one in its pod; the kernel says who listens.
            Liveness::Alive(_) => {
                ask(run, id, None).map_or(Machine::Silent, |info| Machine::Alive(Box::new(info)))
            }
            Liveness::Ended(ending) => Machine::Ended(ending),
            Liveness::Dead if had_pid => Machine::Lost,
            Liveness::Dead => Machine::Launching(Timestamp::try_from(handed).map_err(io::Error::other)?),
        })
    }

    /// Whether the machine's end was asked for on this node.
    pub fn stop_requested(&self, id: &VmId) -> bool {
        stop_mark(&self.run_dir(id)).exists()
    }

    /// The VMs that have a run directory or disks here, made for this cluster and node.
    ///
    /// # Errors
    /// [`ObserveError::Io`].
    pub fn all(&self) -> Result<BTreeSet<VmId>, ObserveError> {
        let mut found = self.owners_in(&self.run)?;
        found.append(&mut self.owners_in(&self.disks)?);
        Ok(found)
    }

    /// How many machines have a run directory here.
    pub fn count(&self) -> usize {
        self.owners_in(&self.run).map_or(0, |owners| owners.len())
    }

    /// The specs of all machines that have a run directory here, whoever made it.
    ///
    /// # Errors
    /// [`ObserveError::Io`].
    pub fn specs(&self) -> Result<Vec<String>, ObserveError> {
        let mut specs = Vec::new();
        for entry in fs::read_dir(&self.run).map_err(|error| ObserveError::Io(self.run.clone(), error))? {
            let entry = entry.map_err(|error| ObserveError::Io(self.run.clone(), error))?;
            let path = RunDir::new(entry.path()).spec();
            let mut text = String::new();
            let read = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound || !entry.path().is_dir() => continue,
                file => file.and_then(|file| file.take(MAX_SPEC).read_to_string(&mut text)),
            };
            read.map_err(|error| ObserveError::Io(path, error))?;
            specs.push(text);
        }
        Ok(specs)
    }

    fn owners_in(&self, folder: &Path) -> Result<BTreeSet<VmId>, ObserveError> {
        let failed = |error| ObserveError::Io(folder.to_owned(), error);
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !entry.file_name().to_str().is_some_and(is_uid) {
                continue;
            }
            match owner(&entry.path()) {
                Ok(Some(owner)) if owner.home == self.home && entry.file_name() == *owner.vm.uid => {
                    found.insert(owner.vm);
                }
                Ok(_) => tracing::debug!(path = %entry.path().display(), "not ours, left alone"),
                Err(error) => {
                    tracing::warn!(path = %entry.path().display(), %error, "cannot be read, left alone");
                }
            }
        }
        Ok(found)
    }

    /// Keeps rvmm's own log from growing without end.
    pub fn bound_log(&self, id: &VmId) {
        let path = log(&self.run_dir(id));
        if fs::metadata(&path).is_ok_and(|file| file.len() > MAX_LOG)
            && let Err(error) = File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(0))
        {
            tracing::warn!(path = %path.display(), %error, "log cannot be cut");
        }
    }
}

/// Asks an rvmm who it is; nothing if it does not answer, or is not the one that it should be.
fn ask(run: &RunDir, id: &VmId, pid: Option<u32>) -> Option<Info> {
    match answer(run, pid) {
        Ok(info) if info.uid.as_deref() == Some(id.uid.as_str()) => Some(info),
        Ok(info) => {
            tracing::warn!(vm = %id, uid = id.uid, other = ?info.uid, "the control socket is another machine's");
            None
        }
        Err(error) => {
            tracing::debug!(vm = %id, uid = id.uid, %error, "the control socket does not answer");
            None
        }
    }
}

fn answer(run: &RunDir, pid: Option<u32>) -> Result<Info, ClientError> {
    let mut client = Client::connect(&run.control_socket())?;
    let peer = client.peer_pid()?;
    if pid.is_some_and(|pid| pid != peer) {
        return Err(ClientError::Refused(Refusal::new(
            RefusalCode::Failed,
            format!("process {peer} listens, not the machine's"),
        )));
    }
    client.info()
}

/// Whose a run directory is; nothing for one that no handler made.
fn owner(path: &Path) -> io::Result<Option<Owner>> {
    let file = match File::open(path.join("owner.json")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut content)?;
    Ok(Some(serde_json::from_slice(&content)?))
}

/// When the rvmm was started that has this log; nothing where none has it open any more.
fn launched_at(log: &Path) -> io::Result<Option<Timestamp>> {
    let file = match File::open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            // Its start has touched it, and one that hangs says no more.
            let touched = file.metadata()?.modified()?;
            Timestamp::try_from(touched).map(Some).map_err(io::Error::other)
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}
