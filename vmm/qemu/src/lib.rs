//! The TCG backend: one qemu-system-riscv64 for one boot of the same Spec that KVM runs.
//!
//! ```text
//!   Spec ─► a thread a boot: prepare (the same checks as under KVM) ─► command (arguments) ─► process ─► session
//!                                                                        │ QMP: running, paused, how it ended
//!                                                                        │ consoles ⇄ Hub, agent ⇄ Agent
//!                                                                        └ on_news(News)
//! ```
//!
//! Nothing here makes its caller wait: looking at files, starting QEMU and watching it are the thread's. QEMU lives for
//! one boot. A reset ends it, as a power-off does; who started it decides what follows. It dies with the thread that
//! watches it, and so with rvmm, however that ends.

mod bays;
pub mod command;
mod complaint;
mod errand;
pub mod find;
mod keyboard;
mod launcher;
mod prepare;
mod process;
mod qmp;
mod session;
mod statistics;
mod tree;
mod wishes;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rvmm_backends::console::Hub;
use rvmm_backends::net::Tap;
use rvmm_backends::plugged::Plugged;
use rvmm_backends::{Agent, News, OnNews};
use rvmm_boot::BootError;
use rvmm_control::Stats;
use rvmm_spec::{Console, DeviceId, OnStart, Outcome, Spec};

use command::{Descriptors, Findings, arguments};
pub use find::FindError;
use find::OLDEST;
use keyboard::Keyboard;
use launcher::Over;
pub use launcher::{Launcher, LauncherError};
pub use prepare::PrepareError;
use prepare::{Prepared, prepare};
use process::{Sockets, numbers, spawn};
pub use qmp::QmpError;
use session::{Focus, Session};
use wishes::{Wish, Wishes};

/// How long QEMU may take until the guest's first instruction. It takes a moment; inside an emulated host, many.
const PATIENCE: Duration = Duration::from_secs(120);

/// How the names of folders begin that hold what a start needs: unpacked kernels, changed device trees, blank variables.
/// Such a folder is removed when the guest runs, as QEMU has read or opened all of it then.
pub const SCRATCH: &str = "rvmm-";

/// What QEMU says when it was built without the means to give up system calls.
const NO_SANDBOX: &str = "seccomp is not compiled";

/// A guest that runs in QEMU. Dropped, it is killed.
#[derive(Debug)]
pub struct QemuGuest {
    wishes: Arc<Wishes>,
    has_balloon: bool,
    over: Option<Over>,
}

/// The guest cannot be started, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// QEMU is not there.
    #[error(transparent)]
    Find(FindError),
    /// A file or a network is not there, or wrong.
    #[error(transparent)]
    Prepare(PrepareError),
    /// An overlay that does not fit the device tree.
    #[error(transparent)]
    Tree(BootError),
    /// The host refused what is needed to watch a process.
    #[error("QEMU cannot be watched")]
    System(#[source] io::Error),
    /// The program could not be started.
    #[error("QEMU ('{0}') cannot be started")]
    Spawn(String, #[source] io::Error),
    /// It ended before the guest ran, and why.
    #[error("QEMU could not start the machine: {0}")]
    Start(String),
    /// It did nothing for too long.
    #[error("QEMU did not start the machine within {} seconds", PATIENCE.as_secs())]
    Silent,
    /// It lacks the machine that is asked for.
    #[error("QEMU {0} is too old: {major}.{minor} or later is needed", major = OLDEST.0, minor = OLDEST.1)]
    Version(String),
    /// It cannot be understood.
    #[error("QEMU cannot be understood")]
    Qmp(#[source] QmpError),
}

/// By whom and from where QEMU is started.
struct Start<'a> {
    launcher: &'a Launcher,
    /// The program, if it was chosen already.
    program: Option<&'a Path>,
    /// Where files for the time of a start go.
    folder: &'a Path,
}

/// What the thread needs to run QEMU.
struct Order {
    /// The program, if it was chosen already.
    program: Option<PathBuf>,
    spec: Spec,
    /// Where files for the time of a start go.
    folder: PathBuf,
    hub: Hub,
    agent: Agent,
    wishes: Arc<Wishes>,
    on_news: OnNews,
}

// === impl QemuGuest ===

impl QemuGuest {
    /// Begins to boot the machine, with what was plugged into it before, and gives it the hub as its consoles. `on_news` is told, from another thread, when it
    /// runs or, where it starts paused, stands, and how it ended: after its last output reached the hub, and also if it could not be started.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(
        launcher: &Launcher,
        spec: &Spec,
        folder: &Path,
        hub: &Hub,
        agent: &Agent,
        plugged: Vec<Plugged>,
        on_news: OnNews,
    ) -> Result<Self, QemuError> {
        let wishes = Arc::new(Wishes::new().map_err(QemuError::System)?);
        for device in plugged {
            wishes.errand(wish(device)?, None);
        }
        let from = Start {
            launcher,
            program: None,
            folder,
        };
        Self::start_program(&from, spec, hub, agent, wishes, on_news)
    }

    /// The device tree that this machine's guest would find.
    ///
    /// # Errors
    /// As [`QemuGuest::start`]: everything is looked at as for a boot.
    pub fn device_tree(spec: &Spec, work_dir: &Path) -> Result<Vec<u8>, QemuError> {
        let program = find::program().map_err(QemuError::Find)?;
        let mut prepared = prepare(spec, work_dir).map_err(QemuError::Prepare)?;
        // It runs for a moment, and no guest in it.
        prepared.findings.sandbox = false;
        tree::build(&program, spec, &prepared.findings, work_dir)
    }

    fn start_program(
        from: &Start<'_>,
        spec: &Spec,
        hub: &Hub,
        agent: &Agent,
        wishes: Arc<Wishes>,
        on_news: OnNews,
    ) -> Result<Self, QemuError> {
        if spec.on_start() == OnStart::Pause {
            wishes.pause(true);
        }
        let order = Order {
            program: from.program.map(Path::to_owned),
            spec: spec.clone(),
            folder: from.folder.to_owned(),
            hub: hub.clone(),
            agent: agent.clone(),
            wishes: Arc::clone(&wishes),
            on_news,
        };
        Ok(Self {
            wishes,
            has_balloon: spec.balloon(),
            over: Some(from.launcher.run(Box::new(move || order.run()))),
        })
    }

    /// Makes the vCPUs stand still; [`News::Paused`] tells when they do. The guest's clock stands with them.
    pub fn pause(&self) {
        self.wishes.pause(true);
    }

    /// Lets paused vCPUs go on; [`News::Running`] tells when they do.
    pub fn resume(&self) {
        self.wishes.pause(false);
    }

    /// Asks the guest to keep so many bytes of its memory and give back the rest; false where it has no balloon.
    pub fn balloon(&self, bytes: u64) -> bool {
        if self.has_balloon {
            self.wishes.balloon(bytes);
        }
        self.has_balloon
    }

    /// Hands what QEMU counts to `on_counted`, from another thread, unless the guest ends before.
    pub fn count(&self, on_counted: impl FnOnce(Stats) + Send + 'static) {
        self.wishes.count(Box::new(on_counted));
    }

    /// Plugs a device in. `on_done` is told, from another thread, what came of it, unless the guest ends before.
    ///
    /// # Errors
    /// What was opened for it is not what it should be.
    pub fn plug(
        &self,
        device: Plugged,
        on_done: impl FnOnce(Result<(), String>) + Send + 'static,
    ) -> Result<(), QemuError> {
        self.wishes.errand(wish(device)?, Some(Box::new(on_done)));
        Ok(())
    }

    /// Pulls a device out, as [`QemuGuest::plug`] plugs it in.
    pub fn unplug(&self, id: &DeviceId, on_done: impl FnOnce(Result<(), String>) + Send + 'static) {
        let out = Wish::Unplug(id.clone());
        self.wishes.errand(out, Some(Box::new(on_done)));
    }

    /// Ends the guest at once, as if its power were cut, and waits until QEMU is gone. Its end is no news
    /// then, unless the guest ended before.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.wishes.kill();
        if let Some(over) = self.over.take() {
            over.wait();
        }
    }
}

impl Drop for QemuGuest {
    fn drop(&mut self) {
        self.end();
    }
}

/// Looks at a device as at those that are there from the start.
fn wish(device: Plugged) -> Result<Wish, QemuError> {
    let is_block_device = prepare::examine(&device).map_err(QemuError::Prepare)?;
    Ok(Wish::Plug {
        device,
        is_block_device,
    })
}

// === impl Order ===

impl Order {
    fn run(self) {
        let ended = match self.live() {
            Ok(outcome) => outcome,
            Err(_) if self.wishes.is_killed() => None,
            Err(error) => Some(Outcome::Failed(complaint::in_full(&error))),
        };
        if let Some(outcome) = ended {
            (self.on_news)(News::Ended(outcome));
        }
    }

    /// Runs QEMU to its end. No outcome if it was killed by our wish.
    fn live(&self) -> Result<Option<Outcome>, QemuError> {
        let program = self.program.clone();
        let program = program.map_or_else(find::program, Ok).map_err(QemuError::Find)?;
        match self.session(&program, true)?.run(&self.on_news) {
            Err(QemuError::Start(why)) if why.contains(NO_SANDBOX) => {
                self.session(&program, false)?.run(&self.on_news)
            }
            other => other,
        }
    }

    /// Starts the process, on the thread that will watch it.
    fn session(&self, program: &Path, sandbox: bool) -> Result<Session, QemuError> {
        let scratch = tempfile::Builder::new().prefix(SCRATCH).tempdir_in(&self.folder);
        let scratch = scratch.map_err(QemuError::System)?;
        let mut prepared: Prepared = prepare(&self.spec, scratch.path()).map_err(QemuError::Prepare)?;
        prepared.findings.sandbox = sandbox;
        tree::change(program, &self.spec, &mut prepared.findings, scratch.path())?;
        let (ours, theirs) = Sockets::pairs().map_err(QemuError::System)?;
        let [qmp, uart, console, agent] = numbers(&theirs);
        let queues = |taps: &Vec<Tap>| taps.iter().map(AsRawFd::as_raw_fd).collect();
        let taps: Vec<Vec<_>> = prepared.taps.iter().map(queues).collect();
        let inherited = [vec![qmp, uart, console, agent], taps.concat()].concat();
        let descriptors = Descriptors {
            qmp,
            uart,
            console,
            agent,
            taps,
        };
        let findings: &Findings = &prepared.findings;
        let arguments = arguments(&self.spec, findings, &descriptors);
        let (focus, socket) = match self.spec.console() {
            Console::Serial => (Focus::Uart, &ours.uart),
            Console::Virtio => (Focus::Console, &ours.console),
        };
        let keyboard = Keyboard {
            socket: socket.try_clone().map_err(QemuError::System)?,
            wishes: Arc::clone(&self.wishes),
        };
        let thp = self.spec.memory_backing().thp;
        let child = spawn(program, &arguments, inherited, thp)
            .map_err(|error| QemuError::Spawn(program.display().to_string(), error))?;
        let ends = session::Ends {
            hub: self.hub.clone(),
            agent: self.agent.clone(),
            wishes: Arc::clone(&self.wishes),
            has_balloon: self.spec.balloon(),
        };
        let session = Session::new(child, ours, focus, ends, scratch);
        self.hub.set_input(Some(Box::new(keyboard)));
        Ok(session)
        // Here QEMU's ends of sockets and taps are closed on our side: we see when QEMU closes them.
    }
}
