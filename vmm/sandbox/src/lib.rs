//! What rvmm may still do while its guest runs: next to nothing, from before the first byte of a kernel or a disk is
//! looked at.
//!
//! ```text
//!   args ─► Spec ─► sockets, terminal ─► Walls::raise      the process: no new privileges, no capability, limits,
//!                                            │               Landlock to the files of the Spec; still one thread
//!                                            ├─► (TCG) the launcher's thread: Walls::confine_launcher
//!                                            ▼
//!                                       Walls::confine_main    seccomp for the main thread ─► Sandbox
//!                                            │
//!      Machine::start(…, &Sandbox) ─► each vCPU's thread: Sandbox::confine(Thread::Vcpu) ─► Confined ─► its loop
//! ```
//!
//! It cannot be forgotten: a machine is only started with a [`Sandbox`], a vCPU's loop only runs with the [`Confined`] of
//! its own thread, and both can be had only by putting the walls up or by [`Walls::none`], which says so to the user.
//! Threads inherit: one that is started later and confines itself no further has the main thread's filter.
//!
//! Every boot, the first and those after a reset, opens its files behind these walls. So what parses a hostile file is
//! confined, and a reset needs nothing that the start did not need.

pub mod calls;
mod filter;
mod launcher;
mod limits;
mod paths;
mod privileges;
mod program;
pub mod requests;
mod violation;

use std::io;
use std::marker::PhantomData;
use std::path::Path;

use rvmm_spec::{SandboxMode, Spec};

pub use violation::on_violation;

/// The kinds of threads, each with the system calls that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thread {
    /// The event loop, and what builds the machine.
    Main,
    /// Runs a vCPU.
    Vcpu,
    /// Reads and writes a disk's file.
    Disk,
    /// Starts QEMU and watches it; QEMU inherits its walls.
    Launcher,
}

/// What the walls are to stand around.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The machine, whose files stay reachable.
    pub spec: &'a Spec,
    /// Where its sockets and logs lie.
    pub run_dir: Option<&'a Path>,
    /// What is run in place of vCPUs, under TCG.
    pub emulator: Option<Emulator<'a>>,
    /// The requests to KVM's descriptors.
    pub kvm: KvmRequests,
}

/// QEMU as the walls see it.
#[derive(Debug, Clone, Copy)]
pub struct Emulator<'a> {
    /// The program.
    pub program: &'a Path,
    /// A firmware that is not its own.
    pub firmware: Option<&'a Path>,
    /// Where files for it are written.
    pub work_dir: &'a Path,
}

/// Numbers of `ioctl` requests that KVM answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct KvmRequests {
    /// To build a machine.
    pub build: &'static [u32],
    /// While a vCPU runs.
    pub run: &'static [u32],
}

/// The process is behind its walls; its threads are yet to be confined.
#[derive(Debug, Clone, Copy)]
pub struct Walls {
    mode: SandboxMode,
    kvm: KvmRequests,
}

/// The main thread is confined: machines may be started.
#[derive(Debug, Clone, Copy)]
pub struct Sandbox(Walls);

/// The thread that holds this has its filter. It stays with the thread that made it.
#[derive(Debug)]
pub struct Confined {
    _thread: Thread,
    _of_this_thread: PhantomData<*const ()>,
}

/// A wall cannot be put up. Nothing is run then.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Threads that are there already would stay outside.
    #[error("the sandbox cannot be set up: {0} threads run already")]
    Threads(usize),
    /// A step that the kernel refused.
    #[error("the sandbox cannot be set up: {0} (--sandbox off runs without it)")]
    Refused(&'static str, #[source] io::Error),
    /// The kernel knows no such rules.
    #[error("the sandbox cannot be set up: Landlock refuses its rules (--sandbox off runs without it)")]
    Landlock(#[source] landlock::RulesetError),
    /// The filter cannot be written or installed.
    #[error("the sandbox cannot be set up: no seccomp filter for the {name} thread (--sandbox off runs without it)", name = .0.name())]
    Filter(Thread, #[source] filter::FilterError),
}

// === impl Thread ===

impl Thread {
    /// For messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Vcpu => "vcpu",
            Self::Disk => "disk",
            Self::Launcher => "launcher",
        }
    }
}

// === impl Walls ===

impl Walls {
    /// Puts the process behind its walls, as the Spec's mode says. To be called while it has one thread.
    ///
    /// # Errors
    /// [`SandboxError`]. The process may be behind some of the walls then.
    pub fn raise(plan: &Plan<'_>) -> Result<Self, SandboxError> {
        let mode = plan.spec.sandbox().mode;
        if mode == SandboxMode::Off {
            tracing::warn!("the sandbox is off: the guest is kept in by KVM or QEMU alone");
            return Ok(Self::none());
        }
        let threads = threads()?;
        if threads != 1 {
            return Err(SandboxError::Threads(threads));
        }
        violation::install().map_err(|error| SandboxError::Refused("no handler for SIGSYS", error))?;
        limits::set(plan)?;
        let landlock = paths::restrict(plan)?;
        privileges::drop_all()?;
        tracing::info!("sandbox: no capabilities, limits set, {landlock}");
        Ok(Self { mode, kvm: plan.kvm })
    }

    /// No walls: for tests, and for `--sandbox off`.
    pub fn none() -> Self {
        Self {
            mode: SandboxMode::Off,
            kvm: KvmRequests::default(),
        }
    }

    /// Confines the calling thread to what starting and watching QEMU takes.
    ///
    /// # Errors
    /// The filter cannot be installed.
    pub fn confine_launcher(&self) -> Result<Confined, SandboxError> {
        self.confine(Thread::Launcher)
    }

    /// Confines the main thread, and with it every thread that is started from now on.
    ///
    /// # Errors
    /// The filter cannot be installed.
    pub fn confine_main(self) -> Result<Sandbox, SandboxError> {
        self.confine(Thread::Main)?;
        Ok(Sandbox(self))
    }

    fn confine(&self, thread: Thread) -> Result<Confined, SandboxError> {
        if self.mode != SandboxMode::Off {
            let logged = self.mode == SandboxMode::Log;
            filter::install(thread, &self.kvm, logged)
                .map_err(|error| SandboxError::Filter(thread, error))?;
        }
        Ok(Confined {
            _thread: thread,
            _of_this_thread: PhantomData,
        })
    }
}

// === impl Sandbox ===

impl Sandbox {
    /// No walls: for tests.
    pub fn none() -> Self {
        Self(Walls::none())
    }

    /// Confines the calling thread further, to what its kind needs.
    ///
    /// # Errors
    /// The filter cannot be installed.
    pub fn confine(&self, thread: Thread) -> Result<Confined, SandboxError> {
        self.0.confine(thread)
    }
}

fn threads() -> Result<usize, SandboxError> {
    let tasks = std::fs::read_dir("/proc/self/task")
        .map_err(|error| SandboxError::Refused("the threads of this process cannot be counted", error))?;
    Ok(tasks.count())
}
