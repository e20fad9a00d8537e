//! A machine that tests run commands on, whichever it is.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rvm_outer_agent::wire::{End, Frame, MAX_PAYLOAD, Program, Request};

use crate::session::{Output, Session};

/// How long a command may take that should end by itself: far longer than any does, so that only a hang is cut.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The largest file that is taken from a host.
const MAX_FILE: usize = 1 << 30;

/// Where the guests that tests boot lie on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assets {
    /// The kernel.
    pub kernel: String,
    /// The initramfs that knows many words.
    pub tiny: String,
    /// The initramfs that is measured.
    pub bench: String,
}

/// A machine that tests run commands on: a lab, or this one.
pub trait Host {
    /// What it is called in messages.
    fn name(&self) -> &str;

    /// Where commands run and relative paths start.
    fn folder(&self) -> &Path;

    /// The guests to boot there.
    fn assets(&self) -> &Assets;

    /// Whether guests run on KVM there; else they are emulated.
    fn has_kvm(&self) -> bool;

    /// Variables that commands get there.
    fn environment(&self) -> Vec<(String, String)>;

    /// A new connection to its agent.
    fn connect(&self) -> Result<File>;

    /// Starts a command whose input and output are pipes.
    fn spawn(&self, argv: &[&str]) -> Result<Session> {
        self.spawn_program(program(argv))
    }

    /// Starts a command on a terminal of its own.
    fn spawn_on_terminal(&self, argv: &[&str]) -> Result<Session> {
        self.spawn_program(Program {
            terminal: true,
            ..program(argv)
        })
    }

    /// Starts a command as described; what is left open is filled in.
    fn spawn_program(&self, mut program: Program) -> Result<Session> {
        program
            .cwd
            .get_or_insert_with(|| self.folder().display().to_string());
        program.env.splice(0..0, self.environment());
        Session::start(self.connect()?, program)
    }

    /// Runs a command without input to its end.
    fn run(&self, argv: &[&str]) -> Result<Output> {
        self.run_within(argv, PATIENCE)
    }

    /// Runs a command without input, that must end within `patience`.
    fn run_within(&self, argv: &[&str], patience: Duration) -> Result<Output> {
        let mut session = self.spawn(argv)?;
        // One that has ended already has no use for it.
        let _ = session.end_input();
        session.wait(patience)
    }

    /// Writes a file there, with this mode.
    fn put_as(&self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let mut connection = self.connect()?;
        let path = self.folder().join(path).display().to_string();
        Request::Put {
            path: path.clone(),
            mode,
        }
        .write_to(&mut connection)?;
        let sent = Frame::Input(bytes.to_vec())
            .write_to(&mut connection)
            .and_then(|()| Frame::InputEnd.write_to(&mut connection));
        // A refusal says more than the broken pipe that it leads to.
        take(connection, |_| Ok(())).with_context(|| format!("cannot put {path} on {}", self.name()))?;
        Ok(sent?)
    }

    /// Writes a file there.
    fn put(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.put_as(path, 0o644, bytes)
    }

    /// Reads a file from there.
    fn get(&self, path: &str) -> Result<Vec<u8>> {
        let mut connection = self.connect()?;
        let path = self.folder().join(path).display().to_string();
        Request::Get { path: path.clone() }.write_to(&mut connection)?;
        let mut content = Vec::new();
        take(connection, |bytes| {
            if content.len() > MAX_FILE - MAX_PAYLOAD {
                bail!("it is larger than any that is taken");
            }
            Ok(content.write_all(bytes)?)
        })
        .with_context(|| format!("cannot get {path} from {}", self.name()))?;
        Ok(content)
    }
}

fn program(argv: &[&str]) -> Program {
    Program {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        ..Program::default()
    }
}

/// Takes what the agent sends until it is done.
fn take(connection: File, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut input = BufReader::new(connection);
    loop {
        match Frame::read_from(&mut input)? {
            Some(Frame::Output(bytes)) => each(&bytes)?,
            Some(Frame::Ended(End::Status(0))) => return Ok(()),
            Some(Frame::Failed(why)) => bail!(why),
            Some(_) | None => bail!("the agent hung up"),
        }
    }
}
