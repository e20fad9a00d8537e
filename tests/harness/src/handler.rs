//! An `rvm-handler` as its operator starts it, in a cluster or in local mode.
//!
//! It may be killed and started again in the same place, as a node's service manager would; its machines live on
//! meanwhile, and end with the [`Handler`].

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rvm_outer::{Output, Session};
use rvmm_control::{Liveness, RunDir};
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::kubectl::Kubectl;
use crate::patience::{Look, eventually};
use crate::process::Process;
use crate::sweep::Sweeper;
use crate::tools::{Environment, Tools, shown};

/// The image that `guests/vmi-alpine.yaml` names.
const ALPINE: &str = "docker.io/library/alpine:3.23";

/// A handler that is about to be started.
#[derive(Debug, Clone)]
pub struct HandlerSetup {
    /// What runs the handler, if it is not us ourselves: a program that ends its own words with another's.
    by: Vec<String>,
    arguments: Vec<String>,
    local: bool,
}

/// A handler and its machines.
#[derive(Debug)]
pub struct Handler {
    /// None while it is down. Ends before its machines, or it would start others.
    process: Option<Process>,
    _sweeper: Sweeper,
    tools: Arc<Tools>,
    setup: HandlerSetup,
    folder: TempDir,
}

impl HandlerSetup {
    /// In local mode.
    #[must_use]
    pub fn local() -> Self {
        Self {
            by: Vec::new(),
            arguments: vec!["--local".to_owned()],
            local: true,
        }
    }

    /// On a node of a cluster.
    #[must_use]
    pub fn on_node(cluster: &Cluster, node: &str) -> Self {
        let kubeconfig = shown(&cluster.kubeconfig_of_handlers());
        let arguments = ["--node", node, "--kubeconfig", &kubeconfig].map(str::to_owned);
        Self {
            by: Vec::new(),
            arguments: arguments.to_vec(),
            local: false,
        }
    }

    /// With more arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&word| word.to_owned()));
        self
    }

    /// With more arguments, as another part of a test made them.
    #[must_use]
    pub fn with_all(mut self, arguments: &[String]) -> Self {
        self.arguments.extend_from_slice(arguments);
        self
    }

    /// As an ordinary user, whoever we are, who has this list of name servers: in a user namespace of its own, where it is not root.
    #[must_use]
    pub fn unprivileged(mut self, resolver: &Path) -> Self {
        let script = r#"mount --bind "$0" /etc/resolv.conf && exec unshare --user --map-user=1000 --map-group=1000 -- "$@""#;
        let words = [
            "unshare",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            &shown(resolver),
        ];
        self.by = words.map(str::to_owned).to_vec();
        self
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// It does not.
    pub fn start(self, tools: &Arc<Tools>) -> Result<Handler> {
        let mut handler = self.prepare(tools)?;
        handler.start()?;
        Ok(handler)
    }

    /// Makes its folder, and does not start it yet.
    ///
    /// # Errors
    /// The file system's.
    pub fn prepare(self, tools: &Arc<Tools>) -> Result<Handler> {
        let folder = tempfile::Builder::new().prefix("rvm-node-").tempdir()?;
        Ok(Handler {
            process: None,
            _sweeper: Sweeper::start(folder.path())?,
            tools: Arc::clone(tools),
            setup: self,
            folder,
        })
    }
}

impl Handler {
    /// Starts it, again or for the first time, and waits until it serves.
    ///
    /// # Errors
    /// It does not.
    pub fn start(&mut self) -> Result<()> {
        let (socket, node) = (self.socket(), self.run_dir());
        let process = self.spawn()?;
        eventually("serving rvm-handler", || {
            process.must_live()?;
            let listens = UnixStream::connect(&socket).is_ok_and(|stream| is_of(&stream, process.id()));
            Ok(Look::of(listens.then_some(()), || {
                format!("no socket in {}", node.display())
            }))
        })
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// The program is not there.
    pub fn spawn(&mut self) -> Result<&mut Process> {
        let (program, demo) = (self.tools.own("rvm-handler")?, self.tools.demo());
        let mirror = format!("{ALPINE}=oci:{}", shown(&demo.image()));
        let process = Process::start_by(
            &self.setup.by,
            &program,
            &self.folder.path().join("handler.log"),
            |command| {
                command
                    .args(&self.setup.arguments)
                    .arg("--run-dir")
                    .arg(self.run_dir())
                    .arg("--state-dir")
                    .arg(self.state_dir())
                    .arg("--guests")
                    .arg(&demo.folder)
                    .args(["--mirror", &mirror])
                    .args(["--grpc", &format!("unix://{}", shown(&self.socket()))])
                    .envs(self.tools.environment());
            },
        )?;
        Ok(self.process.insert(process))
    }

    /// Ends it with SIGKILL. Its machines go on.
    ///
    /// # Errors
    /// It is not running.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the handler is down")?.kill()
    }

    /// Ends it with SIGTERM, which must go well. Its machines go on.
    ///
    /// # Errors
    /// It is not running, or does not end well.
    pub fn terminate(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the handler is down")?;
        let status = process.terminate()?;
        anyhow::ensure!(status.success(), process.complaint(&anyhow::anyhow!("{status}")));
        Ok(())
    }

    /// Its process.
    ///
    /// # Errors
    /// It is down.
    pub fn id(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the handler is down")?.id())
    }

    /// Where its machines' run directories are.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Where its store, images and disks are.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The socket of its gRPC API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("rvm.sock")
    }

    /// The run directory of one machine.
    #[must_use]
    pub fn machine(&self, uid: &str) -> RunDir {
        RunDir::new(self.run_dir().join(uid))
    }

    /// The process that runs a machine, by the word of the lock that it holds.
    ///
    /// # Errors
    /// None does.
    pub fn pid(&self, uid: &str) -> Result<u32> {
        match self.machine(uid).liveness()? {
            Liveness::Alive(Some(pid)) => Ok(pid),
            other => anyhow::bail!("machine {uid} does not run: {other:?}"),
        }
    }

    /// The names of all that is in the run directory: sockets, locks, a folder for each machine.
    ///
    /// # Errors
    /// The file system's.
    pub fn run_dir_entries(&self) -> Result<Vec<String>> {
        names_in(&self.run_dir())
    }

    /// The names of its machines' disks' folders.
    ///
    /// # Errors
    /// The file system's.
    pub fn disks(&self) -> Result<Vec<String>> {
        names_in(&self.state_dir().join("disks"))
    }

    /// What makes `rvm` talk to this handler.
    #[must_use]
    pub fn environment(&self) -> Environment {
        let mut environment = vec![
            ("RVM_RUN".to_owned(), shown(&self.run_dir())),
            ("RVM_STATE".to_owned(), shown(&self.state_dir())),
        ];
        if !self.setup.local {
            environment.push((
                "RVM_SERVER".to_owned(),
                format!("unix://{}", shown(&self.socket())),
            ));
        }
        environment
    }

    /// Runs `rvm` to its end.
    ///
    /// # Errors
    /// It cannot be run; how it ended is for the caller to judge.
    pub fn rvm(&self, args: &[&str]) -> Result<Output> {
        self.feed_rvm(args, "")
    }

    /// Runs `rvm` to its end, with this to read.
    ///
    /// # Errors
    /// As for [`Handler::rvm`].
    pub fn feed_rvm(&self, args: &[&str], input: &str) -> Result<Output> {
        self.tools
            .run(&[&["rvm"], args].concat(), &self.environment(), input)
    }

    /// Starts `rvm` on a terminal.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn rvm_on_terminal(&self, args: &[&str]) -> Result<Session> {
        self.tools
            .start_on_terminal(&[&["rvm"], args].concat(), &self.environment())
    }

    /// In local mode: the kubectl of who started it.
    ///
    /// # Errors
    /// `rvm kubeconfig` does not find the kubeconfig.
    pub fn kubectl(&self) -> Result<Kubectl> {
        let printed = self.rvm(&["kubeconfig"])?.ok()?;
        Kubectl::new(&self.tools, Path::new(printed.trim()))
    }

    /// All that its log says.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("handler.log")).unwrap_or_default()
    }
}

/// Whether this process listens at the other end. What one that was killed had begun to start may hold its socket for a moment more.
fn is_of(stream: &UnixStream, process: u32) -> bool {
    let listener = rustix::net::sockopt::socket_peercred(stream);
    listener.is_ok_and(|listener| u32::try_from(listener.pid.as_raw_pid()) == Ok(process))
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
