//! `rvm console`: waits for the machine, attaches, and is in the way of nothing.
//!
//! ```text
//!   open ──NOT_RUNNING_YET──► watch its phase (a line for each) ──► open again … until --timeout
//!    └─attached─► banner, raw mode ─► ┌ what is typed ─► guest      Ctrl+] ends it, status 0
//!                                     ├ what is printed ─► stdout   --until TEXT ends it, status 0
//!                                     └ SIGTERM, SIGINT, SIGHUP     end it, status 1
//! ```
//!
//! The terminal is restored before anything else is said. With an input that is no terminal nothing is made raw, and
//! its end does not end the console: scripts pipe their lines in and read what comes of them.

use std::cell::Cell;
use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use rvm_proto::reasons::NOT_RUNNING_YET;
use rvm_proto::v1::console_request::{Close, Open, Request};
use rvm_proto::v1::console_response::Response;
use rvm_proto::v1::{ConsoleRequest, ConsoleResponse, GetRequest};
use rvm_types::Phase;
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

use super::{Changes, bare_name, parse};
use crate::args::Console;
use crate::connect::Client;
use crate::screen::progress;
use crate::terminal::{self, Raw};

/// Ctrl+] and Ctrl+5.
const ESCAPE: u8 = 0x1d;
/// Bytes that are read from the keyboard at once.
const CHUNK: usize = 1024;
/// Chunks that wait to be sent.
const QUEUE: usize = 16;
/// Between two attempts to attach to a machine that should run by now.
const AGAIN: Duration = Duration::from_millis(200);
/// How long what was typed before the escape key may take to arrive.
const FAREWELL: Duration = Duration::from_secs(1);
/// Longest time that is waited where `--timeout` asks for more than a clock can hold.
const FOREVER: Duration = Duration::from_secs(365 * 86400);

/// How a console came to its end.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Detached,
    Seen,
    Closed,
}

/// The signals that would end us without a chance to restore the terminal. They are caught before it is made raw.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// An attached console.
struct Attached {
    typed: mpsc::Sender<ConsoleRequest>,
    seen: Streaming<ConsoleResponse>,
}

pub async fn run(mut client: Client, namespace: &str, args: &Console) -> Result<()> {
    let name = bare_name(&args.name)?;
    let deadline = Instant::now() + args.patience.timeout.min(FOREVER);
    let open = Open {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        read_only: args.read_only,
    };
    let console = wait_and_attach(&mut client, &open, deadline).await?;
    progress(&format!(
        "Successfully connected to {name} console. Press Ctrl+] or Ctrl+5 to exit console."
    ));
    let signals = Signals::new()?;
    let raw = if terminal::is_terminal() {
        Some(Raw::enter().context("the terminal cannot be made raw")?)
    } else {
        None
    };
    let end = talk(console, signals, args.until.as_deref(), deadline).await;
    drop(raw);
    match end? {
        End::Detached | End::Seen => Ok(()),
        End::Closed => {
            let how = ending(&mut client, &open).await;
            match &args.until {
                Some(text) => bail!("{how} before it printed {text:?}"),
                None => progress(&format!("\n{how}.")),
            }
            Ok(())
        }
    }
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The name of the first that comes.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}

// === attaching ===

/// Attaches; a machine that has yet to start is waited for.
async fn wait_and_attach(client: &mut Client, open: &Open, deadline: Instant) -> Result<Attached> {
    let mut said = None;
    loop {
        let status = match attach(client, open).await {
            Ok(console) => return Ok(console),
            Err(status) if is_early(&status) => status,
            Err(status) => return Err(status.into()),
        };
        if Instant::now() >= deadline {
            return Err(status.into());
        }
        let waited = timeout_at(deadline, until_it_should_run(client, open, &mut said)).await;
        match waited {
            Ok(waited) => waited?,
            Err(_) => return Err(status).context("timed out"),
        }
    }
}

async fn attach(client: &mut Client, open: &Open) -> Result<Attached, Status> {
    let (typed, requests) = mpsc::channel(QUEUE);
    let first = ConsoleRequest {
        request: Some(Request::Open(open.clone())),
    };
    // The channel is empty and its other end is right here.
    let _ = typed.try_send(first);
    let mut seen = client.console(ReceiverStream::new(requests)).await?.into_inner();
    match seen.message().await?.and_then(|first| first.response) {
        Some(Response::Attached(_)) => Ok(Attached { typed, seen }),
        _ => Err(Status::internal("the server has closed the console at once")),
    }
}

fn is_early(status: &Status) -> bool {
    status
        .get_details_error_info()
        .is_some_and(|info| info.reason == NOT_RUNNING_YET)
}

/// Waits until attaching is worth another try, with a line for each phase on the way.
async fn until_it_should_run(client: &mut Client, open: &Open, said: &mut Option<Phase>) -> Result<()> {
    sleep(AGAIN).await;
    let mut changes = Changes::of(client, &open.namespace, &open.name).await?;
    while let Some(vmi) = changes.next().await? {
        let phase = vmi.phase().cloned().unwrap_or(Phase::Pending);
        if !phase.is_before_running() {
            return Ok(());
        }
        if said.as_ref() != Some(&phase) {
            progress(&format!("Waiting for {}: {phase}", open.name));
            *said = Some(phase);
        }
    }
    bail!("{} was deleted meanwhile", open.name)
}

// === talking ===

/// Moves bytes until one of the ends has come.
async fn talk(
    console: Attached,
    mut signals: Signals,
    until: Option<&str>,
    deadline: Instant,
) -> Result<End> {
    let Attached { typed, seen } = console;
    let patience = async {
        match until {
            Some(_) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    let leaving = Cell::new(false);
    let end = tokio::select! {
        biased;
        name = signals.next() => bail!("ended by {name}"),
        end = print(seen, until) => end?,
        Some(end) = type_in(typed, &leaving) => end,
        () = patience => bail!("timed out before {:?} was printed", until.unwrap_or_default()),
    };
    // A console that closes because it was asked to has not come to its own end.
    Ok(if end == End::Closed && leaving.get() {
        End::Detached
    } else {
        end
    })
}

/// From the guest to standard output, until the console closes or the text appears.
async fn print(mut seen: Streaming<ConsoleResponse>, until: Option<&str>) -> Result<End> {
    let mut stdout = tokio::io::stdout();
    let mut search = until.map(Search::new);
    while let Some(response) = seen.message().await? {
        let Some(Response::Output(output)) = response.response else {
            continue;
        };
        stdout.write_all(&output).await?;
        stdout.flush().await?;
        if search.as_mut().is_some_and(|search| search.finds(&output)) {
            return Ok(End::Seen);
        }
    }
    Ok(End::Closed)
}

/// From the keyboard to the guest. Ends with the escape key, when what was typed before it has arrived; at the end of
/// a script it has no more to do, and says nothing, so that printing goes on.
async fn type_in(typed: mpsc::Sender<ConsoleRequest>, leaving: &Cell<bool>) -> Option<End> {
    let mut keys = keyboard();
    while let Some(chunk) = keys.recv().await {
        let escape = chunk.iter().position(|byte| *byte == ESCAPE);
        let input = chunk.slice(..escape.unwrap_or(chunk.len()));
        // A console that is closed is reported by the side that reads it.
        if !input.is_empty() {
            typed
                .send(ConsoleRequest {
                    request: Some(Request::Input(input)),
                })
                .await
                .ok()?;
        }
        if escape.is_some() {
            leaving.set(true);
            let close = ConsoleRequest {
                request: Some(Request::Close(Close {})),
            };
            // The closed stream ends the console; a guest that does not read must not hold its viewer.
            let _ = typed.try_send(close);
            sleep(FAREWELL).await;
            return Some(End::Detached);
        }
    }
    None
}

/// Standard input, read by a thread of its own: there is no other way that works for files, pipes and terminals.
fn keyboard() -> mpsc::Receiver<Bytes> {
    let (keys, receiver) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        let mut chunk = [0; CHUNK];
        while let Ok(length @ 1..) = std::io::stdin().read(&mut chunk) {
            if keys
                .blocking_send(Bytes::copy_from_slice(&chunk[..length]))
                .is_err()
            {
                return;
            }
        }
    });
    receiver
}

/// How the machine whose console was closed has ended, for people.
async fn ending(client: &mut Client, open: &Open) -> String {
    let request = GetRequest {
        namespace: open.namespace.clone(),
        name: open.name.clone(),
    };
    let object = client
        .get(request)
        .await
        .ok()
        .map(|response| response.into_inner().object);
    let phase = object.and_then(|object| parse(&object).ok()?.phase().cloned());
    match phase {
        Some(phase) if phase.is_final() => format!("{} has ended ({phase})", open.name),
        _ => format!("The console of {} was closed", open.name),
    }
}

// === --until ===

/// Looks for a text in a stream of chunks, also where it is cut in two.
struct Search {
    text: Vec<u8>,
    /// The end of what was seen: less than the text is long.
    tail: Vec<u8>,
}

impl Search {
    fn new(text: &str) -> Self {
        Self {
            text: text.as_bytes().to_owned(),
            tail: Vec::new(),
        }
    }

    fn finds(&mut self, chunk: &[u8]) -> bool {
        self.tail.extend_from_slice(chunk);
        if self.text.is_empty()
            || self
                .tail
                .windows(self.text.len())
                .any(|window| window == self.text)
        {
            return true;
        }
        let keep = self.tail.len().min(self.text.len() - 1);
        self.tail.drain(..self.tail.len() - keep);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_cut_in_two_is_found() {
        let mut search = Search::new("login:");
        assert_eq!(
            [&b"alpine lo"[..], b"gi", b"n", b": "].map(|chunk| search.finds(chunk)),
            [false, false, false, true]
        );
    }

    #[test]
    fn what_was_seen_is_not_kept() {
        let mut search = Search::new("login:");
        assert!(!search.finds(&[b'x'; 100_000]));
        assert!(search.tail.len() < 6);
    }
}
