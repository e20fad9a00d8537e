//! Where every program of a test lies, and a way to run commands with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rvm_guests::{Cache, DemoGuest, Toolbox, cross, demo, kube};
use rvm_outer::here::built_programs;
use rvm_outer::{Here, Host, Output, Program, Session};

use crate::patience::PATIENCE;

/// Variables of a command.
pub type Environment = Vec<(String, String)>;

/// The programs of this machine, and of the cache.
#[derive(Debug)]
pub struct Tools {
    here: Here,
    kube: PathBuf,
    opensbi: PathBuf,
    firmware: PathBuf,
    demo: DemoGuest,
}

impl Tools {
    /// All of them; what the cache does not hold yet is made.
    ///
    /// # Errors
    /// Something cannot be made.
    pub fn open() -> Result<Arc<Self>> {
        let cache = Cache::open()?;
        let toolbox = Toolbox::open(&cache)?;
        Ok(Arc::new(Self {
            here: Here::start()?,
            kube: kube::assets(&cache)?,
            opensbi: toolbox.opensbi(),
            firmware: toolbox.firmware_dir(),
            demo: demo::build(&cache)?,
        }))
    }

    /// This machine, as the lab's tests know it.
    #[must_use]
    pub fn here(&self) -> &Here {
        &self.here
    }

    /// The demo guest.
    #[must_use]
    pub fn demo(&self) -> &DemoGuest {
        &self.demo
    }

    /// A program of Kubernetes.
    #[must_use]
    pub fn kube(&self, name: &str) -> PathBuf {
        self.kube.join(name)
    }

    /// One of our programs.
    ///
    /// # Errors
    /// It was not built.
    pub fn own(&self, name: &str) -> Result<PathBuf> {
        let path = built_programs()?.join(name);
        // The path is shown to rvmm's users in its messages, so it should be a plain one.
        path.canonicalize()
            .with_context(|| format!("{} is not built: cargo build -p {name}", path.display()))
    }

    /// A file of the workspace.
    #[must_use]
    pub fn source(&self, path: &str) -> PathBuf {
        cross::workspace().join(path)
    }

    /// What every command gets: a path with our programs and the emulator first, and the firmware.
    #[must_use]
    pub fn environment(&self) -> Environment {
        let mut environment = self.here.environment();
        environment.push(("RVMM_OPENSBI".to_owned(), shown(&self.opensbi)));
        environment.push(("RVM_FIRMWARE".to_owned(), shown(&self.firmware)));
        environment
    }

    /// Starts a command on pipes.
    ///
    /// # Errors
    /// No thread can be started; a program that is not there is reported by the session.
    pub fn start(&self, argv: &[&str], environment: &[(String, String)]) -> Result<Session> {
        self.here.spawn_program(self.program(argv, environment))
    }

    /// Starts a command on a terminal of its own.
    ///
    /// # Errors
    /// As for [`Tools::start`].
    pub fn start_on_terminal(&self, argv: &[&str], environment: &[(String, String)]) -> Result<Session> {
        self.here.spawn_program(Program {
            terminal: true,
            ..self.program(argv, environment)
        })
    }

    /// Runs a command to its end, with this input.
    ///
    /// # Errors
    /// It does not end, or is not there. How it ended is for the caller to judge.
    pub fn run(&self, argv: &[&str], environment: &[(String, String)], input: &str) -> Result<Output> {
        let mut session = self.start(argv, environment)?;
        // One that has ended already has no use for it.
        let _ = session.send(input).and_then(|()| session.end_input());
        session.wait(PATIENCE)
    }

    fn program(&self, argv: &[&str], environment: &[(String, String)]) -> Program {
        let mut env = self.environment();
        env.extend_from_slice(environment);
        Program {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env,
            ..Program::default()
        }
    }
}

/// A path as commands take it.
#[must_use]
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}
