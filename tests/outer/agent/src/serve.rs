//! Serves one connection: runs its command, or writes or reads its file.
//!
//! Three threads carry a command's output, its errors, and what comes in from the client; this one waits for its end. A
//! command that leaves something running in the background ends all the same, as it would in a shell: what it left keeps
//! its pipes, which are drained to nowhere. A client that goes away takes the command's process group with it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

use crate::terminal::Terminal;
use crate::wire::{End, Frame, Program, Request};

/// How long what a command wrote before its end may take to come through its pipes.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves one connection to its end. `launcher` stands before every command: `setpriv --pdeathsig KILL --` where
/// commands must not outlive this process.
pub fn serve(connection: File, launcher: &[&str]) -> Result<()> {
    let mut input = BufReader::new(connection.try_clone()?);
    let out = Out::new(connection);
    let done = match Request::read_from(&mut input).context("cannot read the request")? {
        Request::Run(program) => run(&program, launcher, input, &out),
        Request::Put { path, mode } => put(Path::new(&path), mode, &mut input),
        Request::Get { path } => get(Path::new(&path), &out),
    };
    Ok(out.send(&match done {
        Ok(end) => Frame::Ended(end),
        Err(error) => Frame::Failed(format!("{error:#}")),
    })?)
}

/// The way to the client, shared by the threads of a command.
#[derive(Clone)]
struct Out(Arc<Mutex<File>>);

impl Out {
    fn new(connection: File) -> Self {
        Self(Arc::new(Mutex::new(connection)))
    }

    fn send(&self, frame: &Frame) -> io::Result<()> {
        frame.write_to(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn run(program: &Program, launcher: &[&str], input: BufReader<File>, out: &Out) -> Result<End> {
    let Started {
        mut child,
        stdin,
        stdout,
        stderr,
    } = start(program, launcher)?;
    let target = Target::of(&child)?;
    let (drained, all_drained) = channel();
    pump(stdout, Frame::Output, out, &drained);
    if let Some(stderr) = stderr {
        pump(stderr, Frame::Error, out, &drained);
    }
    drop(drained);
    let towards = target.clone();
    thread::spawn(move || take_input(input, stdin, &towards));
    let status = target.wait(&mut child).context("cannot wait for the command")?;
    wait_until_drained(&all_drained);
    end_of(status)
}

struct Started {
    child: Child,
    stdin: Box<dyn Write + Send>,
    stdout: Box<dyn Read + Send>,
    stderr: Option<Box<dyn Read + Send>>,
}

fn start(program: &Program, launcher: &[&str]) -> Result<Started> {
    let Some(name) = program.argv.first() else {
        bail!("no command given")
    };
    // The program leads a session of its own when it has a terminal; `-c` makes that its controlling one.
    let session: &[&str] = if program.terminal { &["setsid", "-c"] } else { &[] };
    let before = launcher.iter().chain(session).copied();
    let mut words = before.chain(program.argv.iter().map(String::as_str));
    let mut command = Command::new(words.next().unwrap_or_default());
    command
        .args(words)
        .envs(program.env.iter().map(|(name, value)| (name, value)));
    if let Some(cwd) = &program.cwd {
        command.current_dir(cwd);
    }
    if program.terminal {
        start_on_terminal(command)
    } else {
        start_on_pipes(command)
    }
    .with_context(|| format!("cannot start {name}"))
}

fn start_on_pipes(mut command: Command) -> Result<Started> {
    command
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    Ok(Started {
        stdin: Box::new(child.stdin.take().context("no pipe to standard input")?),
        stdout: Box::new(child.stdout.take().context("no pipe from standard output")?),
        stderr: Some(Box::new(
            child.stderr.take().context("no pipe from standard error")?,
        )),
        child,
    })
}

fn start_on_terminal(mut command: Command) -> Result<Started> {
    let Terminal { ours, theirs } = Terminal::open().context("cannot open a terminal")?;
    command
        .stdin(theirs.try_clone()?)
        .stdout(theirs.try_clone()?)
        .stderr(theirs);
    // `command` goes at the end of this function, and with it our hold on the program's end of the terminal.
    let child = command.spawn()?;
    Ok(Started {
        child,
        stdin: Box::new(ours.try_clone()?),
        stdout: Box::new(ours),
        stderr: None,
    })
}

/// Carries `from` to the client until its end, and says so on `drained` by dropping it.
fn pump(mut from: Box<dyn Read + Send>, frame: fn(Vec<u8>) -> Frame, out: &Out, drained: &Sender<()>) {
    let (out, drained) = (out.clone(), drained.clone());
    thread::spawn(move || {
        let _drained = drained;
        let mut buffer = [0; 16384];
        loop {
            match from.read(&mut buffer) {
                // A terminal that nobody holds any more reads as an error, which is its end.
                Ok(0) => return,
                Ok(count) => {
                    // A client that has gone changes nothing: what writes here must not block.
                    let _ = out.send(&frame(buffer[..count].to_vec()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
}

fn wait_until_drained(all_drained: &Receiver<()>) {
    let until = Instant::now() + DRAIN;
    // Nothing is ever sent: the channel closes when the last pump ends.
    let _ = all_drained.recv_timeout(until.saturating_duration_since(Instant::now()));
}

/// A running command; nothing once it has ended, when its number may come to mean another process.
#[derive(Clone)]
struct Target(Arc<Mutex<Option<Pid>>>);

impl Target {
    fn of(child: &Child) -> Result<Self> {
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("a command without a process")?;
        Ok(Self(Arc::new(Mutex::new(Some(pid)))))
    }

    /// Runs `send` with the command's number, which stays its own meanwhile.
    fn signal(&self, send: impl FnOnce(Pid) -> rustix::io::Result<()>) {
        if let Some(pid) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // It may have ended a moment ago; it then needs no signal.
            let _ = send(pid);
        }
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus> {
        let pid = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = pid {
            // Sees the end without letting go of the number.
            retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT))?;
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(child.wait()?)
    }
}

fn take_input(mut input: BufReader<File>, stdin: Box<dyn Write + Send>, target: &Target) {
    let mut stdin = Some(stdin);
    loop {
        match Frame::read_from(&mut input) {
            Ok(Some(Frame::Input(bytes))) => {
                let written = stdin
                    .as_mut()
                    .map(|stdin| stdin.write_all(&bytes).and_then(|()| stdin.flush()));
                if matches!(written, Some(Err(_))) {
                    stdin = None;
                }
            }
            Ok(Some(Frame::InputEnd)) => stdin = None,
            Ok(Some(Frame::Signal(number))) => {
                if let Some(signal) = Signal::from_named_raw(number) {
                    target.signal(|pid| kill_process(pid, signal));
                }
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                target.signal(|pid| kill_process_group(pid, Signal::KILL));
                return;
            }
        }
    }
}

fn end_of(status: ExitStatus) -> Result<End> {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(End::Status(code)),
        (None, Some(signal)) => Ok(End::Signal(signal)),
        (None, None) => bail!("the command neither ended nor was killed"),
    }
}

/// Writes beside the place and renames, so that a file being replaced may be running.
fn put(path: &Path, mode: u32, input: &mut impl Read) -> Result<End> {
    let folder = path
        .parent()
        .with_context(|| format!("{} is no file name", path.display()))?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let half = path.with_added_extension("half");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&half)
        .with_context(|| format!("cannot write {}", path.display()))?;
    loop {
        match Frame::read_from(input)? {
            Some(Frame::Input(bytes)) => {
                file.write_all(&bytes)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            Some(Frame::InputEnd) => break,
            Some(_) | None => bail!("{} was not sent to its end", path.display()),
        }
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    fs::rename(&half, path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(End::Status(0))
}

fn get(path: &Path, out: &Out) -> Result<End> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut buffer = vec![0; crate::wire::MAX_PAYLOAD];
    loop {
        let count = file
            .read(&mut buffer)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if count == 0 {
            return Ok(End::Status(0));
        }
        out.send(&Frame::Output(buffer[..count].to_vec()))?;
    }
}
