//! The run directory of one machine: who may be in it, and what can be said from outside.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::message::Ending;

/// Largest file of a run directory that is read whole.
const MAX_FILE: u64 = 64 << 10;

/// How often, and with which pause, the lock is tried before the machine is taken to live.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The paths of one machine's run directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

/// Proof that this process is the one that runs the machine. Lost with the process, however it ends.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

/// The run directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another rvmm runs this machine.
    #[error("the machine in '{0}' already runs{by}", by = .1.map(|pid| format!(" as process {pid}")).unwrap_or_default())]
    Taken(PathBuf, Option<u32>),
    /// The folder or the lock's file could not be made.
    #[error("the run directory '{0}' cannot be used")]
    Io(PathBuf, #[source] io::Error),
}

/// What can be seen of a machine from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Liveness {
    /// An rvmm holds the lock. Its pid, once it has written it.
    Alive(Option<u32>),
    /// It ended, and said how.
    Ended(Ending),
    /// Nobody holds the lock and no ending was written: it was killed, or never started.
    Dead,
}

// === impl RunDir ===

impl RunDir {
    /// Names the directory; nothing is made or read.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `spec.json`.
    pub fn spec(&self) -> PathBuf {
        self.path.join("spec.json")
    }

    /// `control.sock`.
    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// `console.sock`.
    pub fn console_socket(&self) -> PathBuf {
        self.path.join("console.sock")
    }

    /// `console.log`.
    pub fn console_log(&self) -> PathBuf {
        self.path.join("console.log")
    }

    fn pid(&self) -> PathBuf {
        self.path.join("pid")
    }

    fn exit(&self) -> PathBuf {
        self.path.join("exit.json")
    }

    /// Makes the directory, for its owner alone, with its parents.
    ///
    /// # Errors
    /// The file system's.
    pub fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
    }

    /// Becomes the process that runs this machine: takes the lock, writes the pid, clears away what a former one
    /// left (sockets, ending).
    ///
    /// # Errors
    /// [`ClaimError::Taken`] while another one lives.
    pub fn claim(&self) -> Result<RunLock, ClaimError> {
        let failed = |error| ClaimError::Io(self.path.clone(), error);
        self.create().map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.pid())
            .map_err(failed)?;
        self.lock(&file)?;
        for stale in [self.control_socket(), self.console_socket(), self.exit()] {
            remove_if_there(&stale).map_err(failed)?;
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(RunLock { _file: file })
    }

    /// Looks whether the machine lives, without disturbing it.
    ///
    /// # Errors
    /// The file system's; a directory that is not there is [`Liveness::Dead`].
    pub fn liveness(&self) -> io::Result<Liveness> {
        let held = match open(&self.pid()) {
            Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if held {
            return Ok(Liveness::Alive(self.read_pid()));
        }
        Ok(self.read_ending().map_or(Liveness::Dead, Liveness::Ended))
    }

    /// Writes how the machine ended, whole or not at all. The lock shows that it is the machine who says so.
    ///
    /// # Errors
    /// The file system's.
    pub fn write_ending(&self, _lock: &RunLock, ending: &Ending) -> io::Result<()> {
        let fresh = self.path.join("exit.json.new");
        fs::write(&fresh, serde_json::to_vec(ending)?)?;
        fs::rename(fresh, self.exit())
    }

    /// Removes the sockets when the machine is over; the log and the ending stay to be read.
    pub fn remove_sockets(&self, _lock: &RunLock) {
        for socket in [self.control_socket(), self.console_socket()] {
            // A socket that cannot be removed is recognised as dead by the next one who looks.
            remove_if_there(&socket).ok();
        }
    }

    /// Takes the lock. Someone who only looks whether it is held holds it himself for an instant, hence the retries.
    fn lock(&self, file: &File) -> Result<(), ClaimError> {
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(ClaimError::Io(self.path.clone(), error)),
            }
        }
        Err(ClaimError::Taken(self.path.clone(), self.read_pid()))
    }

    fn read_pid(&self) -> Option<u32> {
        String::from_utf8(read_bounded(&self.pid())?)
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    fn read_ending(&self) -> Option<Ending> {
        serde_json::from_slice(&read_bounded(&self.exit())?).ok()
    }
}

/// Opens a file of a run directory to look at it. The directory may be one that the machine's own user writes to, and whoever looks
/// root: links lead nowhere, and nothing makes us wait.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

fn read_bounded(path: &Path) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    open(path).ok()?.take(MAX_FILE).read_to_end(&mut content).ok()?;
    Some(content)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::EndReason;

    fn run_dir() -> (tempfile::TempDir, RunDir) {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::new(folder.path().join("vm"));
        (folder, run)
    }

    fn ending() -> Ending {
        Ending {
            reason: EndReason::Poweroff,
            message: "the guest switched itself off".into(),
        }
    }

    #[test]
    fn the_same_machine_cannot_be_claimed_twice() {
        let (_folder, run) = run_dir();
        let lock = run.claim().unwrap();
        assert!(matches!(run.claim(), Err(ClaimError::Taken(_, Some(pid))) if pid == std::process::id()));
        assert_eq!(run.liveness().unwrap(), Liveness::Alive(Some(std::process::id())));
        drop(lock);
        assert!(run.claim().is_ok());
    }

    #[test]
    fn a_pid_file_without_a_lock_is_a_dead_machine_whoever_has_the_pid_now() {
        let (_folder, run) = run_dir();
        run.create().unwrap();
        fs::write(run.pid(), format!("{}\n", std::process::id())).unwrap();
        fs::write(run.control_socket(), "").unwrap();
        assert_eq!(run.liveness().unwrap(), Liveness::Dead);
        let _lock = run.claim().unwrap();
        assert!(!run.control_socket().exists());
    }

    #[test]
    fn an_ending_is_found_until_the_machine_starts_again() {
        let (_folder, run) = run_dir();
        let lock = run.claim().unwrap();
        run.write_ending(&lock, &ending()).unwrap();
        drop(lock);
        assert_eq!(run.liveness().unwrap(), Liveness::Ended(ending()));
        drop(run.claim().unwrap());
        assert_eq!(run.liveness().unwrap(), Liveness::Dead);
    }

    #[test]
    fn what_is_no_file_of_a_machine_is_not_followed_and_makes_nobody_wait() {
        let (_folder, run) = run_dir();
        run.create().unwrap();
        fs::write(
            run.path().join("elsewhere"),
            serde_json::to_vec(&ending()).unwrap(),
        )
        .unwrap();
        std::os::unix::fs::symlink("elsewhere", run.exit()).unwrap();
        assert_eq!(run.liveness().unwrap(), Liveness::Dead);
        std::os::unix::fs::symlink("elsewhere", run.pid()).unwrap();
        assert!(run.liveness().is_err());
        fs::remove_file(run.pid()).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, run.pid(), fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert_eq!(run.liveness().unwrap(), Liveness::Dead);
    }

    #[test]
    fn a_directory_that_is_not_there_is_a_dead_machine() {
        let (_folder, run) = run_dir();
        assert_eq!(run.liveness().unwrap(), Liveness::Dead);
    }
}
