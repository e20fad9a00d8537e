//! The machines of this node: one rvmm process each, found again by their run directories.
//!
//! ```text
//!   $RVM_RUN/<uid>/   owner.json       whose it is: VMI, node, cluster       written here, before the hand-over
//!                     spec.json        the machine                           written here, before the hand-over
//!                     rvmm.log         what rvmm itself says; locked by it   from the start until it is gone
//!                     stop-requested   the end was asked for                 written here, before it is killed
//!                     pid, *.sock, console.log, exit.json                    rvmm's own (rvmm-control)
//!   <state>/disks/<uid>/<volume>.raw   empty disks
//! ```
//!
//! Nothing is remembered in memory: [`Machines::observe`] reads what is on disk, so a restarted handler knows what
//! the former one knew. The directory appears whole, by a rename. The lock on `rvmm.log` is taken here and goes to
//! rvmm with its standard output, so that "about to run" can be told from "was never started" at any moment,
//! whoever of the two is killed; from then on rvmm's own lock (`pid`) speaks.

pub mod adopt;
pub mod spawn;
pub mod stop;
pub mod watch;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rvmm_control::RunDir;
use rvmm_spec::Spec;
use rvmm_spec::wire::{Document, WireError};
use serde::{Deserialize, Serialize};

use crate::vm::{Machine, VmId};

/// Run directories that are not whole yet start with this.
const UNFINISHED: &str = ".new-";

/// Longest path of a Unix socket on Linux, without its NUL.
const MAX_SOCKET_PATH: usize = 107;

/// The machines' places on this node.
#[derive(Debug)]
pub struct Machines {
    run: PathBuf,
    disks: PathBuf,
    rvmm: PathBuf,
    home: String,
    /// Keeps a second handler out of the same directory.
    _lock: File,
}

/// Whose a run directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The VMI.
    pub vm: VmId,
    /// The cluster and the node for which it was made. A handler leaves alone what was made for another.
    pub home: String,
}

/// The run directory as a whole cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another handler is there.
    #[error("another rvm-handler works in '{0}'")]
    Taken(PathBuf),
    /// Unix sockets in it could not be named.
    #[error(
        "the run directory's path '{0}' is too long: a socket in it would have more than {MAX_SOCKET_PATH} bytes"
    )]
    TooLong(PathBuf),
    /// It cannot be made or read.
    #[error("'{0}' cannot be used")]
    Io(PathBuf, #[source] io::Error),
}

/// A machine's files could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayOutError {
    /// The disk or directory.
    #[error("'{0}' cannot be written")]
    Io(PathBuf, #[source] io::Error),
    /// A path that JSON cannot hold.
    #[error("the machine's description cannot be written")]
    Spec(#[from] WireError),
}

// === impl Machines ===

impl Machines {
    /// Takes over a run directory, with the machines that are in it.
    ///
    /// # Errors
    /// Any [`OpenError`].
    pub fn open(run: &Path, state: &Path, rvmm: PathBuf, home: String) -> Result<Self, OpenError> {
        let failed = |error| OpenError::Io(run.to_owned(), error);
        let longest = RunDir::new(run.join("00000000-0000-0000-0000-000000000000")).console_socket();
        if longest.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(OpenError::TooLong(run.to_owned()));
        }
        private_dir(run).map_err(failed)?;
        let lock = File::create(run.join("handler.lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => OpenError::Taken(run.to_owned()),
            fs::TryLockError::Error(error) => failed(error),
        })?;
        for entry in fs::read_dir(run).map_err(failed)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        let disks = state.join("disks");
        private_dir(&disks).map_err(|error| OpenError::Io(disks.clone(), error))?;
        Ok(Self {
            run: run.to_owned(),
            disks,
            rvmm,
            home,
            _lock: lock,
        })
    }

    /// A machine's run directory.
    pub fn run_dir(&self, id: &VmId) -> RunDir {
        RunDir::new(self.run.join(&id.uid))
    }

    /// Makes an empty disk, or finds the one made before.
    ///
    /// # Errors
    /// [`LayOutError::Io`].
    pub fn empty_disk(&self, id: &VmId, volume: &str, capacity: u64) -> Result<PathBuf, LayOutError> {
        let folder = self.disks.join(&id.uid);
        let path = folder.join(format!("{volume}.raw"));
        let make = || {
            private_dir(&folder)?;
            let mut options = File::options();
            options.write(true).create(true).truncate(false);
            options.open(&path)?.set_len(capacity)
        };
        make().map_err(|error| LayOutError::Io(path.clone(), error))?;
        Ok(path)
    }

    /// Writes the run directory of a machine that was never started: all of it, or nothing.
    ///
    /// # Errors
    /// Any [`LayOutError`].
    pub fn lay_out(&self, id: &VmId, spec: &Spec) -> Result<(), LayOutError> {
        let json = Document::from(spec).to_json()?;
        let (fresh, path) = (
            self.run.join(format!("{UNFINISHED}{}", id.uid)),
            self.run.join(&id.uid),
        );
        let owner = Owner {
            vm: id.clone(),
            home: self.home.clone(),
        };
        let write = || {
            remove_all(&fresh)?;
            private_dir(&fresh)?;
            write_file(&fresh.join("owner.json"), &serde_json::to_vec(&owner)?)?;
            write_file(&RunDir::new(&fresh).spec(), json.as_bytes())?;
            remove_all(&path)?;
            fs::rename(&fresh, &path)
        };
        write().map_err(|error| LayOutError::Io(path.clone(), error))
    }

    /// Removes a machine's files.
    ///
    /// # Errors
    /// The file system's; that the machine is alive or about to be.
    pub fn remove(&self, id: &VmId) -> io::Result<()> {
        match self.observe(id).map_err(io::Error::other)? {
            Machine::Launching | Machine::Silent | Machine::Alive(_) => {
                return Err(io::Error::other("its machine lives"));
            }
            Machine::Absent | Machine::Prepared | Machine::Ended(_) | Machine::Lost => {}
        }
        remove_all(&self.disks.join(&id.uid))?;
        remove_all(&self.run.join(&id.uid))
    }
}

/// `rvmm.log` of a run directory.
fn log(run: &RunDir) -> PathBuf {
    run.path().join("rvmm.log")
}

/// `stop-requested` of a run directory.
fn stop_mark(run: &RunDir) -> PathBuf {
    run.path().join("stop-requested")
}

fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)
}

fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
