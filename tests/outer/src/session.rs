//! A running command, seen by a test: what it says, what it is told, how it ends.
//!
//! A thread takes everything the command says as it comes, so nothing blocks for want of a reader. [`Session::expect`] reads
//! on from where the last one stopped, in what has come already and then in what comes.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use rvm_outer_agent::wire::{End, Frame, Program, Request};

/// The most that one command may say.
const MAX_OUTPUT: usize = 256 << 20;

/// How much of what it said is shown when it does not say what it should.
const SHOWN: usize = 3000;

/// How a command ended, and all it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub end: End,
    /// What it wrote to standard output, or to its terminal.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Its exit status; `None` if a signal ended it.
    #[must_use]
    pub fn status(&self) -> Option<i32> {
        match self.end {
            End::Status(status) => Some(status),
            End::Signal(_) => None,
        }
    }

    /// What it wrote to standard output, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What it wrote to standard error, as text.
    #[must_use]
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// What it wrote to standard output; an error with what it wrote to both if it did not end with status 0.
    pub fn ok(self) -> Result<String> {
        ensure!(
            self.end == End::Status(0),
            "ended with {:?}: {}{}",
            self.end,
            self.error_text(),
            self.text()
        );
        Ok(self.text())
    }
}

/// What the command has said so far.
#[derive(Debug, Default)]
struct Heard {
    /// Output and errors, as they came.
    all: Vec<u8>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Set once, last.
    end: Option<Result<End, String>>,
}

#[derive(Debug, Default)]
struct Ear {
    heard: Mutex<Heard>,
    news: Condvar,
}

impl Ear {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` finds something; `None` if time is up before.
    fn wait_until<T>(&self, patience: Duration, found: impl Fn(&Heard) -> Option<T>) -> Option<T> {
        let until = Instant::now() + patience;
        let mut heard = self.lock();
        loop {
            if let Some(thing) = found(&heard) {
                return Some(thing);
            }
            let left = until.checked_duration_since(Instant::now())?;
            heard = self
                .news
                .wait_timeout(heard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn listen(&self, connection: File) {
        let mut input = BufReader::new(connection);
        loop {
            let frame = Frame::read_from(&mut input);
            let mut heard = self.lock();
            match frame {
                Ok(Some(Frame::Output(bytes))) => heard.add(&bytes, |heard| &mut heard.stdout),
                Ok(Some(Frame::Error(bytes))) => heard.add(&bytes, |heard| &mut heard.stderr),
                Ok(Some(Frame::Ended(end))) => heard.end = Some(Ok(end)),
                Ok(Some(Frame::Failed(why))) => heard.end = Some(Err(why)),
                Ok(Some(_)) => heard.end = Some(Err("the agent speaks out of turn".to_owned())),
                Ok(None) => heard.end = Some(Err("the agent hung up".to_owned())),
                Err(error) => heard.end = Some(Err(format!("the connection broke: {error}"))),
            }
            let over = heard.end.is_some();
            drop(heard);
            self.news.notify_all();
            if over {
                return;
            }
        }
    }
}

impl Heard {
    fn add(&mut self, bytes: &[u8], stream: fn(&mut Self) -> &mut Vec<u8>) {
        if self.all.len() + bytes.len() > MAX_OUTPUT {
            self.end = Some(Err("it says more than any test reads".to_owned()));
            return;
        }
        self.all.extend_from_slice(bytes);
        stream(self).extend_from_slice(bytes);
    }

    fn tail(&self) -> String {
        let from = self.all.len().saturating_sub(SHOWN);
        String::from_utf8_lossy(&self.all[from..]).into_owned()
    }
}

/// A running command. Dropping it kills the command and its process group.
#[derive(Debug)]
pub struct Session {
    name: String,
    connection: File,
    ear: Arc<Ear>,
    /// Where the next `expect` starts reading.
    read_to: usize,
}

impl Session {
    /// Starts `program` at the far end of `connection`.
    pub fn start(mut connection: File, program: Program) -> Result<Self> {
        let name = program.argv.join(" ");
        Request::Run(program).write_to(&mut connection)?;
        let ear = Arc::new(Ear::default());
        let (listener, incoming) = (ear.clone(), connection.try_clone()?);
        thread::spawn(move || listener.listen(incoming));
        Ok(Self {
            name,
            connection,
            ear,
            read_to: 0,
        })
    }

    /// Waits until the command says `needle`, and returns what it said up to and with that since the last `expect`.
    pub fn expect(&mut self, needle: &str, patience: Duration) -> Result<String> {
        let from = self.read_to;
        let found = self.ear.wait_until(patience, |heard| {
            let unread = &heard.all[from..];
            let at = unread
                .windows(needle.len().max(1))
                .position(|window| window == needle.as_bytes());
            match (at, &heard.end) {
                (Some(at), _) => Some(Ok(unread[..at + needle.len()].to_vec())),
                (None, Some(end)) => Some(Err(end.clone())),
                (None, None) => None,
            }
        });
        match found {
            Some(Ok(text)) => {
                self.read_to += text.len();
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
            Some(Err(end)) => Err(self.complaint(&format!("ended ({end:?}) and never said {needle:?}"))),
            None => Err(self.complaint(&format!("did not say {needle:?} within {} s", patience.as_secs()))),
        }
    }

    /// Everything it said so far.
    #[must_use]
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.ear.lock().all).into_owned()
    }

    /// Sends input.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.tell(&Frame::Input(bytes.as_ref().to_vec()))
    }

    /// Ends its input.
    pub fn end_input(&mut self) -> Result<()> {
        self.tell(&Frame::InputEnd)
    }

    /// Sends it a signal.
    pub fn kill(&mut self, signal: Signal) -> Result<()> {
        self.tell(&Frame::Signal(signal.as_raw()))
    }

    /// Waits until it has ended.
    pub fn wait(&mut self, patience: Duration) -> Result<Output> {
        let end = self.ear.wait_until(patience, |heard| heard.end.clone());
        let Some(end) = end else {
            return Err(self.complaint(&format!("is still running after {} s", patience.as_secs())));
        };
        let end = end.map_err(|why| anyhow!("{}: {why}", self.name))?;
        let heard = self.ear.lock();
        Ok(Output {
            end,
            stdout: heard.stdout.clone(),
            stderr: heard.stderr.clone(),
        })
    }

    /// Carries everything from `from` to the command, and everything it says to `to`, until it ends: how a person uses it.
    pub fn converse(mut self, from: impl io::Read + Send + 'static, to: &mut impl Write) -> Result<End> {
        let mut keyboard = self.connection.try_clone()?;
        thread::spawn(move || carry(from, &mut keyboard));
        loop {
            let from = self.read_to;
            let forever = Duration::from_secs(u64::from(u32::MAX));
            let (news, end) = self
                .ear
                .wait_until(forever, |heard| {
                    let news = heard.all[from..].to_vec();
                    (!news.is_empty() || heard.end.is_some()).then(|| (news, heard.end.clone()))
                })
                .context("nobody waits for that long")?;
            self.read_to += news.len();
            to.write_all(&news)?;
            to.flush()?;
            match end {
                Some(Ok(end)) => return Ok(end),
                Some(Err(why)) => bail!("{}: {why}", self.name),
                None => {}
            }
        }
    }

    fn tell(&mut self, frame: &Frame) -> Result<()> {
        match frame.write_to(&mut self.connection) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.complaint(&format!("is not there any more ({error})"))),
        }
    }

    fn complaint(&self, what: &str) -> anyhow::Error {
        let mut text = format!("{} {what}", self.name);
        let _ = write!(text, "; it said:\n{}", self.ear.lock().tail());
        anyhow!(text)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The listening thread holds the connection too, so closing our end would not close it.
        let _ = rustix::net::shutdown(&self.connection, rustix::net::Shutdown::Both);
    }
}

/// Carries input until either side ends.
fn carry(mut from: impl io::Read, to: &mut File) {
    let mut buffer = [0; 4096];
    loop {
        let sent = match from.read(&mut buffer) {
            Ok(0) | Err(_) => {
                let _ = Frame::InputEnd.write_to(to);
                return;
            }
            Ok(count) => Frame::Input(buffer[..count].to_vec()).write_to(to),
        };
        if sent.is_err() {
            return;
        }
    }
}
