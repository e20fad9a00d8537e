//! The TCG backend: one qemu-system-riscv64 for one boot of the same Spec that KVM runs.
//!
//! ```text
//!   Spec ─► prepare (the same checks as under KVM) ─► command (arguments) ─► process ─► session: a thread a boot
//!                                                                               │ QMP: started, how it ended
//!                                                                               │ consoles ⇄ Hub
//!                                                                               └ on_end(Outcome)
//! ```
//!
//! QEMU lives for one boot. A reset ends it, as a power-off does; who started it decides what follows. It dies with the
//! thread that watches it, and so with rvmm, however that ends.

pub mod command;
pub mod find;
mod prepare;
mod process;
mod qmp;
mod session;
mod tree;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rvmm_backends::console::Hub;
use rvmm_backends::net::Tap;
use rvmm_boot::BootError;
use rvmm_spec::{Console, Outcome, Spec};

use command::{Descriptors, Findings, arguments};
pub use find::FindError;
use find::OLDEST;
pub use prepare::PrepareError;
use prepare::{Prepared, prepare};
use process::{Sockets, numbers, spawn};
pub use qmp::QmpError;
use session::{Focus, Keyboard, Session, Wishes};

/// How long QEMU may take until the guest's first instruction. It takes a moment; inside an emulated host, many.
const PATIENCE: Duration = Duration::from_secs(120);

/// What QEMU says when it was built without the means to give up system calls.
const NO_SANDBOX: &str = "seccomp is not compiled";

/// Called once, from another thread, when the guest ends by itself.
pub type OnEnd = Box<dyn Fn(Outcome) + Send + Sync>;

/// A guest that runs in QEMU. Dropped, it is killed.
#[derive(Debug)]
pub struct QemuGuest {
    wishes: Arc<Wishes>,
    thread: Option<JoinHandle<()>>,
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

/// What the thread needs to run QEMU.
struct Order {
    program: PathBuf,
    spec: Spec,
    prepared: Prepared,
    hub: Hub,
    wishes: Arc<Wishes>,
}

// === impl QemuGuest ===

impl QemuGuest {
    /// Boots the machine, and gives it the hub as its consoles. `work_dir` is a folder that outlives the guest; what may
    /// be in there from an earlier boot is overwritten. `on_end` is called when the guest ends by itself, after its last
    /// output reached the hub; from there, [`QemuGuest::kill`] must not be called.
    ///
    /// # Errors
    /// What is missing, or what QEMU refused. Nothing is left running then, and `on_end` is never called.
    pub fn start(spec: &Spec, hub: &Hub, work_dir: &Path, on_end: OnEnd) -> Result<Self, QemuError> {
        let program = find::program().map_err(QemuError::Find)?;
        Self::start_program(&program, spec, hub, work_dir, on_end)
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
        program: &Path,
        spec: &Spec,
        hub: &Hub,
        work_dir: &Path,
        on_end: OnEnd,
    ) -> Result<Self, QemuError> {
        let on_end: Arc<dyn Fn(Outcome) + Send + Sync> = on_end.into();
        let attempt = |sandbox| {
            let mut prepared = prepare(spec, work_dir).map_err(QemuError::Prepare)?;
            prepared.findings.sandbox = sandbox;
            tree::change(program, spec, &mut prepared.findings, work_dir)?;
            let order = Order {
                program: program.to_owned(),
                spec: spec.clone(),
                prepared,
                hub: hub.clone(),
                wishes: Arc::new(Wishes::new().map_err(QemuError::System)?),
            };
            Self::attempt(order, Arc::clone(&on_end))
        };
        match attempt(true) {
            Err(QemuError::Start(why)) if why.contains(NO_SANDBOX) => attempt(false),
            other => other,
        }
    }

    fn attempt(order: Order, on_end: Arc<dyn Fn(Outcome) + Send + Sync>) -> Result<Self, QemuError> {
        let wishes = Arc::clone(&order.wishes);
        let (sender, receiver) = mpsc::channel();
        let watch = move || {
            if let Some(outcome) = order.run(&sender) {
                on_end(outcome);
            }
        };
        let thread = thread::Builder::new().name("qemu".to_owned()).spawn(watch);
        let guest = Self {
            wishes,
            thread: Some(thread.map_err(QemuError::System)?),
        };
        match receiver.recv_timeout(PATIENCE) {
            Ok(Ok(())) => Ok(guest),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => Err(QemuError::Silent),
            Err(RecvTimeoutError::Disconnected) => Err(QemuError::Start("its thread ended".to_owned())),
        }
    }

    /// Ends the guest at once, as if its power were cut, and waits until QEMU is gone. `on_end` is not called any more,
    /// unless the guest ended before.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.wishes.kill();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has dropped, and so killed, its QEMU.
            thread.join().ok();
        }
    }
}

impl Drop for QemuGuest {
    fn drop(&mut self) {
        self.end();
    }
}

// === impl Order ===

impl Order {
    fn run(self, started: &Sender<Result<(), QemuError>>) -> Option<Outcome> {
        match self.session() {
            Ok(session) => session.run(started),
            Err(error) => {
                // A starter that gave up needs no answer.
                started.send(Err(error)).ok();
                None
            }
        }
    }

    /// Starts the process, on the thread that will watch it.
    fn session(self) -> Result<Session, QemuError> {
        let (ours, theirs) = Sockets::pairs().map_err(QemuError::System)?;
        let [qmp, uart, console] = numbers(&theirs);
        let queues = |taps: &Vec<Tap>| taps.iter().map(AsRawFd::as_raw_fd).collect();
        let taps: Vec<Vec<_>> = self.prepared.taps.iter().map(queues).collect();
        let inherited = [&[qmp, uart, console][..], &taps.concat()].concat();
        let descriptors = Descriptors {
            qmp,
            uart,
            console,
            taps,
        };
        let findings: &Findings = &self.prepared.findings;
        let arguments = arguments(&self.spec, findings, &descriptors);
        let (focus, socket) = match self.spec.console() {
            Console::Serial => (Focus::Uart, &ours.uart),
            Console::Virtio => (Focus::Console, &ours.console),
        };
        let keyboard = Keyboard {
            socket: socket.try_clone().map_err(QemuError::System)?,
            wishes: Arc::clone(&self.wishes),
        };
        let child = spawn(
            &self.program,
            &arguments,
            inherited,
            self.spec.memory_backing().thp,
        )
        .map_err(|error| QemuError::Spawn(self.program.display().to_string(), error))?;
        let session = Session::new(child, ours, focus, self.hub.clone(), self.wishes);
        self.hub.set_input(Some(Box::new(keyboard)));
        Ok(session)
        // Here QEMU's ends of sockets and taps are closed on our side: we see when QEMU closes them.
    }
}
