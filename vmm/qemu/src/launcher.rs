//! The thread that starts every QEMU of this process, and watches it.
//!
//! There is one for all boots, as it has to be older than the main thread's filter: a thread inherits the filter of the one
//! that starts it, and QEMU would inherit it, too. Its own filter is made for both. The kernel kills QEMU when this thread
//! ends, and so with rvmm.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use rvmm_sandbox::{SandboxError, Walls};

/// One QEMU from start to end.
type Job = Box<dyn FnOnce() + Send>;

/// The way to the thread. It ends when this is gone.
#[derive(Debug)]
pub struct Launcher {
    jobs: Sender<(Job, Sender<()>)>,
}

/// A job that was given to the thread.
#[derive(Debug)]
pub(crate) struct Over(Receiver<()>);

/// The thread cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// The host has no more threads.
    #[error("no thread to start QEMU from")]
    Thread(#[source] io::Error),
    /// It cannot be confined.
    #[error(transparent)]
    Sandbox(SandboxError),
}

// === impl Launcher ===

impl Launcher {
    /// Starts the thread. It returns when the thread is confined.
    ///
    /// # Errors
    /// [`LauncherError`].
    pub fn start(walls: &Walls) -> Result<Self, LauncherError> {
        let (jobs, queue) = mpsc::channel::<(Job, Sender<()>)>();
        let (ready, confined) = mpsc::channel();
        let walls = *walls;
        let work = move || match walls.confine_launcher() {
            Ok(_confined) => {
                // Who waits for it is there: see below.
                ready.send(Ok(())).ok();
                for (job, _over) in queue {
                    job();
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        };
        thread::Builder::new()
            .name("launcher".to_owned())
            .spawn(work)
            .map_err(LauncherError::Thread)?;
        match confined.recv() {
            Ok(Ok(())) => Ok(Self { jobs }),
            Ok(Err(error)) => Err(LauncherError::Sandbox(error)),
            Err(gone) => Err(LauncherError::Thread(io::Error::other(gone))),
        }
    }

    /// Gives the thread its next job; none is taken up before the last one is over.
    pub(crate) fn run(&self, job: Job) -> Over {
        let (over, wait) = mpsc::channel();
        // Where the thread is gone the job is dropped, and with it what its starter waits for.
        self.jobs.send((job, over)).ok();
        Over(wait)
    }
}

// === impl Over ===

impl Over {
    /// Waits until the job is done.
    pub(crate) fn wait(self) {
        // Nothing is ever sent: the other end is dropped.
        self.0.recv().ok();
    }
}
