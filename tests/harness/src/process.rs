//! A server that a test needs: started so that it cannot outlive the test, its words kept for when something fails.
//!
//! `setpriv --pdeathsig` has the kernel kill it when the thread that started it ends, however that happens. So that
//! thread is one of our own, which lives as long as the [`Process`] does, and not a test's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::patience::{Look, eventually};

/// How much of a log is shown when something goes wrong.
const SHOWN: usize = 6000;

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Ends the thread that the process must not outlive.
    _keeper: Sender<()>,
}

impl Process {
    /// Starts `program` with what `set_up` gives it; what it says is added to `log`.
    ///
    /// # Errors
    /// The program or its log cannot be had.
    pub fn start(program: &Path, log: &Path, set_up: impl FnOnce(&mut Command)) -> Result<Self> {
        Self::start_by(&[], program, log, set_up)
    }

    /// The same, where other programs run it, each of which becomes the next.
    ///
    /// # Errors
    /// As for [`Process::start`].
    pub fn start_by(
        by: &[String],
        program: &Path,
        log: &Path,
        set_up: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        ensure!(program.is_file(), "there is no program {}", program.display());
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(by).arg(program);
        set_up(&mut command);
        let output = File::options().append(true).create(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let (child, keeper) = spawn_kept(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name,
            child,
            log: log.to_owned(),
            _keeper: keeper,
        })
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It does not end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        // A child that was not waited for keeps its number, so it is this one that is signalled.
        if let Some(pid) = i32::try_from(self.id()).ok().and_then(Pid::from_raw)
            && self.child.try_wait()?.is_none()
        {
            kill_process(pid, Signal::TERM)?;
        }
        self.wait()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// It does not end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let what = format!("end of {}", self.name);
        let child = &mut self.child;
        let waited = eventually(&what, || {
            Ok(Look::of(child.try_wait()?, || "it goes on".to_owned()))
        });
        waited.map_err(|error| self.complaint(&error))
    }

    /// Fails, with its last words, if it has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn must_live(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.complaint(&anyhow!("ended ({status})"))),
        }
    }

    /// An error about it, with its last words.
    #[must_use]
    pub fn complaint(&self, error: &anyhow::Error) -> anyhow::Error {
        anyhow!("{}: {error:#}; it said:\n{}", self.name, tail(&self.log))
    }

    /// All it said.
    #[must_use]
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left running.
        let _ = self.kill();
        if thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, tail(&self.log));
        }
    }
}

/// Whether a process still does anything; one that only waits for its foster parent to look is over.
#[must_use]
pub fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut state = status.lines().filter(|line| line.starts_with("State:"));
    state.any(|state| !state.contains("zombie"))
}

/// How many descriptors a process has open.
///
/// # Errors
/// There is no such process.
pub fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Ends a process at once that is another's child, as a crash would. One that is gone already is no error.
///
/// # Errors
/// The kernel's.
pub fn kill(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match kill_process(pid.context("no process has this number")?, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Starts `command` from a thread that lives until the returned sender is dropped.
fn spawn_kept(mut command: Command) -> Result<(Child, Sender<()>)> {
    let (keeper, kept) = channel::<()>();
    let (started, child) = channel();
    thread::Builder::new().name("keeper".to_owned()).spawn(move || {
        if started.send(command.spawn()).is_ok() {
            let _ = kept.recv();
        }
    })?;
    let child = child.recv().context("the thread that starts programs is gone")?;
    Ok((child.context("cannot run setpriv (package util-linux)")?, keeper))
}

fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let from = bytes.len().saturating_sub(SHOWN);
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_ends_early_is_reported_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut process = Process::start(Path::new("/bin/sh"), &log, |command| {
            command.args(["-c", "echo no port left; exit 3"]);
        })
        .unwrap();
        assert_eq!(process.wait().unwrap().code(), Some(3));
        let error = process.must_live().unwrap_err().to_string();
        assert!(error.contains("no port left"), "{error}");
    }

    #[test]
    fn nothing_is_left_of_one_that_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(Path::new("/bin/sleep"), &folder.path().join("log"), |command| {
            command.arg("1000");
        })
        .unwrap();
        let pid = process.id();
        assert!(runs(pid));
        drop(process);
        assert!(!runs(pid));
    }
}
