//! A stand-in for rvmm that does nothing but hold its run directory and speak the control protocol, so that one machine can hold a
//! thousand of them: one thread, which sleeps until somebody asks it something.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rvmm_control::session::Session;
use rvmm_control::{Accelerator, EndReason, Ending, Event, Info, Reply, Request, RunDir, State};
use rvmm_spec::Spec;
use rvmm_spec::wire::Document;

/// Most clients at a time; more have to wait.
const MAX_CLIENTS: usize = 16;

/// Bytes of a request that are read at once.
const CHUNK: usize = 4096;

struct Client {
    stream: UnixStream,
    session: Session,
}

fn main() -> ExitCode {
    match live() {
        Ok(status) => status,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "rvm-stand-in: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn live() -> Result<ExitCode> {
    let spec = std::fs::read(path_after("--spec")?)?;
    let spec = Document::parse(&spec).context("the spec is no machine")?;
    let run = RunDir::new(path_after("--run-dir")?);
    let lock = run.claim()?;
    let listener = UnixListener::bind(run.control_socket())?;
    let reason = serve(&listener, &info(&spec))?;
    let message = "the stand-in was told to end".to_owned();
    run.write_ending(&lock, &Ending { reason, message })?;
    run.remove_sockets(&lock);
    Ok(reason.exit_status().into())
}

/// The path behind this flag.
fn path_after(flag: &str) -> Result<PathBuf> {
    let mut words = std::env::args_os().skip_while(|word| word != flag);
    let path = words.nth(1).with_context(|| format!("{flag} is missing"))?;
    Ok(path.into())
}

fn info(spec: &Spec) -> Info {
    Info {
        name: spec.name().to_owned(),
        uid: spec.uid().map(str::to_owned),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        accelerator: Accelerator::Tcg,
        accelerator_reason: "a stand-in runs no guest".to_owned(),
        state: State::Running,
        cpus: spec.cpus(),
        memory_bytes: spec.memory().bytes(),
        resets: 0,
        uptime_seconds: 0,
        agent: false,
        devices: Vec::new(),
        disk_error: None,
    }
}

/// Answers until somebody has it end.
fn serve(listener: &UnixListener, info: &Info) -> Result<EndReason> {
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let mut watched: Vec<PollFd<'_>> = clients
            .iter()
            .map(|client| PollFd::new(&client.stream, PollFlags::IN))
            .collect();
        if clients.len() < MAX_CLIENTS {
            watched.push(PollFd::new(listener, PollFlags::IN));
        }
        poll(&mut watched, None)?;
        let mut ready: Vec<bool> = watched.iter().map(|one| !one.revents().is_empty()).collect();
        drop(watched);
        let comes = ready.len() > clients.len() && ready.pop() == Some(true);
        let mut kept = Vec::with_capacity(clients.len());
        for (mut client, ready) in clients.into_iter().zip(ready) {
            if !ready {
                kept.push(client);
                continue;
            }
            match client.answer(info)? {
                Heard::More => kept.push(client),
                Heard::Last => {}
                Heard::End(reason) => return Ok(reason),
            }
        }
        clients = kept;
        if comes {
            let (stream, _) = listener.accept()?;
            let session = Session::default();
            clients.push(Client { stream, session });
        }
    }
}

enum Heard {
    More,
    Last,
    End(EndReason),
}

// === impl Client ===

impl Client {
    /// Answers what was asked.
    fn answer(&mut self, info: &Info) -> Result<Heard> {
        let mut chunk = [0; CHUNK];
        let Ok(count @ 1..) = self.stream.read(&mut chunk) else {
            return Ok(Heard::Last);
        };
        self.session.feed(chunk.get(..count).unwrap_or_default());
        let mut heard = Heard::More;
        while let Some(call) = self.session.next_call() {
            match call.request {
                Request::Info => {
                    let info = Reply::Info(Box::new(info.clone()));
                    self.session.answer(call.id, info);
                }
                Request::Subscribe => {
                    self.session.subscribe();
                    self.session.answer(call.id, Reply::Done);
                    self.session.notify(&Event::Running);
                }
                Request::Kill => {
                    self.session.answer(call.id, Reply::Done);
                    heard = Heard::End(EndReason::Killed);
                }
                Request::Stop { .. } => heard = Heard::End(EndReason::Poweroff),
                _ => self.session.answer(call.id, Reply::Done),
            }
        }
        let written = self.stream.write_all(self.session.pending());
        self.session.written(self.session.pending().len());
        // Who has gone needs no answer, but is obeyed.
        Ok(match heard {
            Heard::More if written.is_err() || self.session.is_broken() => Heard::Last,
            heard => heard,
        })
    }
}
