//! The machines of this node: one rvmm process each, found again by their run directories.
//!
//! ```text
//!   $RVM_RUN/<uid>/   owner.json       whose it is: VMI, node, cluster       written here, before the hand-over
//!                     spec.json        the machine                           written here, before the hand-over
//!                     <volume>.iso     disks of a few files                  written here, before the hand-over
//!                     rvmm.log         what rvmm itself says; locked by it   from the start until it is gone
//!                     stop-requested   the end was asked for                 written here, before it is killed
//!                     thaw-at          until when its guest is frozen         written here, before the guest is told
//!                     pid, *.sock, console.log, exit.json                    rvmm's own (rvmm-control)
//!                     vm               where the five of rvmm are, of a machine in a pod     written here, at its start
//!   <state>/disks/<uid>/   owner.json, the empty disks: <volume>.raw, what is written over shared ones: <volume>.qcow2
//! ```
//!
//! Nothing is remembered in memory: [`Machines::observe`] reads what is on disk, so a restarted handler knows what
//! the former one knew. The directory appears whole, by a rename. The lock on `rvmm.log` is taken here and goes to
//! rvmm with its standard output, so that "about to run" can be told from "was never started" at any moment,
//! whoever of the two is killed; from then on rvmm's own lock (`pid`) speaks.

pub mod adopt;
pub mod children;
pub mod spawn;
pub mod stop;
pub mod watch;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rvmm_control::RunDir;
use rvmm_spec::Spec;
use rvmm_spec::wire::{Document, WireError};
use serde::{Deserialize, Serialize};

use crate::place::Place;
use crate::vm::{Machine, VmId};
use crate::volumes::{Seed, overlay};
use adopt::ObserveError;

/// Run directories that are not whole yet start with this.
const UNFINISHED: &str = ".new-";

/// Where a machine in a pod has what is rvmm's own: in its run directory, a link to the pod's volume. Without it none was handed to
/// any pod.
pub const POD_LINK: &str = "vm";

/// A machine's EFI variables; volumes' files have other endings.
const EFI_VARIABLES: &str = "efi-variables.fd";

/// The machines' places on this node.
#[derive(Debug)]
pub struct Machines {
    run: PathBuf,
    disks: PathBuf,
    rvmm: PathBuf,
    home: String,
    in_pods: bool,
    /// Keeps other handlers out of the same directories.
    _place: Place,
}

/// Whose a run directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The VMI.
    pub vm: VmId,
    /// The cluster and the node for which it was made. A handler leaves alone what was made for another.
    pub home: String,
}

/// The machines' directories cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' cannot be used")]
pub struct OpenError(PathBuf, #[source] io::Error);

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
    /// Takes over the machines of a place; `home` is the cluster and the node that they belong to.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(place: Place, rvmm: PathBuf, home: String) -> Result<Self, OpenError> {
        let (run, disks) = (place.run().to_owned(), place.state().join("disks"));
        for folder in [&run, &disks] {
            private_dir(folder)
                .and_then(|()| remove_unfinished(folder))
                .map_err(|error| OpenError(folder.clone(), error))?;
        }
        Ok(Self {
            run,
            disks,
            rvmm,
            home,
            in_pods: false,
            _place: place,
        })
    }

    /// The same, whose machines are in pods.
    #[must_use]
    pub fn in_pods(self) -> Self {
        Self {
            in_pods: true,
            ..self
        }
    }

    /// Whether they are in pods.
    pub fn are_in_pods(&self) -> bool {
        self.in_pods
    }

    /// Where a machine's rvmm keeps what is its own: in the machine's run directory, or, in a pod, where a link in that leads to.
    pub fn run_dir(&self, id: &VmId) -> RunDir {
        let folder = self.folder(id);
        RunDir::new(if self.in_pods {
            folder.join(POD_LINK)
        } else {
            folder
        })
    }

    /// A machine's run directory, in which everything is ours.
    pub fn folder(&self, id: &VmId) -> PathBuf {
        self.run.join(&id.uid)
    }

    /// Where a machine's own disks lie.
    pub fn disks_of(&self, id: &VmId) -> PathBuf {
        self.disks.join(&id.uid)
    }

    /// Makes an empty disk, or finds the one made before.
    ///
    /// # Errors
    /// [`LayOutError::Io`].
    pub fn empty_disk(&self, id: &VmId, volume: &str, capacity: u64) -> Result<PathBuf, LayOutError> {
        let path = self.disks.join(&id.uid).join(format!("{volume}.raw"));
        let make = || {
            self.disk_folder(id)?;
            let mut options = File::options();
            options.write(true).create(true).truncate(false).mode(0o600);
            options.open(&path)?.set_len(capacity)
        };
        make().map_err(|error| LayOutError::Io(path.clone(), error))?;
        Ok(path)
    }

    /// Makes the image for what a machine writes onto a disk of so many bytes that others use too. One made before may have been
    /// for another disk, and nothing was written into it yet: machines are prepared before they are started.
    ///
    /// # Errors
    /// [`LayOutError::Io`].
    pub fn overlay(&self, id: &VmId, volume: &str, size: u64) -> Result<PathBuf, LayOutError> {
        let path = self.disks.join(&id.uid).join(format!("{volume}.qcow2"));
        let make = || {
            let folder = self.disk_folder(id)?;
            let fresh = folder.join(format!("{UNFINISHED}{volume}"));
            let mut options = File::options();
            options.write(true).create(true).truncate(true).mode(0o600);
            overlay::write(&options.open(&fresh)?, size)?;
            fs::rename(&fresh, &path)
        };
        make().map_err(|error| LayOutError::Io(path.clone(), error))?;
        Ok(path)
    }

    /// Where a machine's firmware keeps its variables, in a folder that is there: with the machine's disks.
    ///
    /// # Errors
    /// [`LayOutError::Io`].
    pub fn efi_variables(&self, id: &VmId) -> Result<PathBuf, LayOutError> {
        let folder = self.disk_folder(id);
        let folder = folder.map_err(|error| LayOutError::Io(self.disks.join(&id.uid), error))?;
        Ok(folder.join(EFI_VARIABLES))
    }

    fn disk_folder(&self, id: &VmId) -> io::Result<PathBuf> {
        let folder = self.disks.join(&id.uid);
        if !folder.exists() {
            let fresh = self.owned_dir(&self.disks, id)?;
            fs::rename(fresh, &folder)?;
        }
        Ok(folder)
    }

    /// Writes the run directory of a machine that was never started, with these files in it: all of it, or nothing.
    ///
    /// # Errors
    /// Any [`LayOutError`].
    pub fn lay_out(&self, id: &VmId, spec: &Spec, seeds: &[Seed]) -> Result<(), LayOutError> {
        let json = Document::from(spec).to_json()?;
        let path = self.run.join(&id.uid);
        let write = || {
            let fresh = self.owned_dir(&self.run, id)?;
            write_file(&RunDir::new(&fresh).spec(), json.as_bytes())?;
            for seed in seeds {
                write_file(&fresh.join(&seed.name), &seed.content)?;
            }
            remove_all(&path)?;
            fs::rename(&fresh, &path)
        };
        write().map_err(|error| LayOutError::Io(path.clone(), error))
    }

    /// A new directory that says whose it is, under a name that it does not keep.
    fn owned_dir(&self, parent: &Path, id: &VmId) -> io::Result<PathBuf> {
        let fresh = parent.join(format!("{UNFINISHED}{}", id.uid));
        let owner = Owner {
            vm: id.clone(),
            home: self.home.clone(),
        };
        remove_all(&fresh)?;
        private_dir(&fresh)?;
        write_file(&fresh.join("owner.json"), &serde_json::to_vec(&owner)?)?;
        Ok(fresh)
    }

    /// Removes a machine's files, unless they are another's.
    ///
    /// # Errors
    /// The file system's; that the machine is alive or about to be.
    pub fn remove(&self, id: &VmId) -> io::Result<()> {
        let seen = match self.observe(id) {
            Err(ObserveError::NotOurs(..)) => return Ok(()),
            seen => seen.map_err(io::Error::other)?,
        };
        match seen {
            Machine::Launching(_) | Machine::Silent | Machine::Alive(_) => {
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
    own(run).join("rvmm.log")
}

/// The folder in which everything is ours, of whatever of it is rvmm's.
pub fn own(run: &RunDir) -> &Path {
    let path = run.path();
    let above = path.parent().filter(|_| path.ends_with(POD_LINK));
    above.unwrap_or(path)
}

/// `stop-requested` of a run directory.
fn stop_mark(run: &RunDir) -> PathBuf {
    own(run).join("stop-requested")
}

fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(content)
}

fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
