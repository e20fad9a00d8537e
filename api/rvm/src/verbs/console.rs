//! `rvm console`: waits for the machine, attaches, and is in the way of nothing.
//!
//! ```text
//!   attach ──not running yet──► watch its phase (a line for each) ──► open again … until --timeout
//!    └─attached─► banner, raw mode ─► ┌ what is typed ─► guest      Ctrl+] ends it, status 0
//!                                     ├ what is printed ─► stdout   --until TEXT ends it, status 0
//!                                     └ SIGTERM, SIGINT, SIGHUP     end it, status 1
//! ```
//!
//! Which API is asked makes no difference here: `machine` says what both can do, `rvm` and `kubernetes` do it.
//!
//! The terminal is restored before anything else is said. With an input that is no terminal nothing is made raw, and
//! its end does not end the console: scripts pipe their lines in and read what comes of them.

mod kubernetes;
pub mod logs;
mod machine;
mod rvm;

use std::cell::Cell;
use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use self::machine::Machine;
use super::bare_name;
use crate::args::{Console, Global};
use crate::screen::progress;
use crate::signals::Signals;
use crate::terminal::{self, Raw};

/// Ctrl+] and Ctrl+5.
const ESCAPE: u8 = 0x1d;
/// Bytes that are read from the keyboard at once.
const CHUNK: usize = 1024;
/// Chunks that wait to be sent.
const QUEUE: usize = 16;
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

/// An attached console.
struct Attached {
    typed: mpsc::Sender<Typed>,
    seen: BoxStream<'static, Result<Bytes>>,
}

/// What goes to the guest.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Input(Bytes),
    /// The end, which is answered when all before it has arrived.
    Close,
}

/// What came of an attempt.
enum Attempt {
    Attached(Attached),
    /// The machine has yet to start.
    Early(anyhow::Error),
}

pub async fn run(global: &Global, args: &Console) -> Result<()> {
    let name = bare_name(&args.name)?;
    let deadline = Instant::now() + args.timeout.min(FOREVER);
    let mut machine = Machine::find(global, name, args.read_only).await?;
    let console = wait_and_attach(&mut machine, deadline).await?;
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
            let how = match machine.phase().await {
                Ok(Some(phase)) if phase.is_final() => format!("{name} has ended ({phase})"),
                _ => format!("The console of {name} was closed"),
            };
            match &args.until {
                Some(text) => bail!("{how} before it printed {text:?}"),
                None => progress(&format!("\n{how}.")),
            }
            Ok(())
        }
    }
}

/// Attaches; a machine that has yet to start is waited for, with a line for each phase on the way.
async fn wait_and_attach(machine: &mut Machine, deadline: Instant) -> Result<Attached> {
    let mut said = None;
    loop {
        let early = match machine.attach().await? {
            Attempt::Attached(console) => return Ok(console),
            Attempt::Early(why) => why,
        };
        if Instant::now() >= deadline {
            return Err(early);
        }
        match timeout_at(deadline, machine.until_it_should_run(&mut said)).await {
            Ok(waited) => waited?,
            Err(_) => return Err(early).context("timed out"),
        }
    }
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
async fn print(mut seen: BoxStream<'static, Result<Bytes>>, until: Option<&str>) -> Result<End> {
    let mut stdout = tokio::io::stdout();
    let mut search = until.map(Search::new);
    while let Some(output) = seen.next().await {
        let output = output?;
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
async fn type_in(typed: mpsc::Sender<Typed>, leaving: &Cell<bool>) -> Option<End> {
    let mut keys = keyboard();
    while let Some(chunk) = keys.recv().await {
        let escape = chunk.iter().position(|byte| *byte == ESCAPE);
        let input = chunk.slice(..escape.unwrap_or(chunk.len()));
        // A console that is closed is reported by the side that reads it.
        if !input.is_empty() {
            typed.send(Typed::Input(input)).await.ok()?;
        }
        if escape.is_some() {
            leaving.set(true);
            // The closed stream ends the console; a guest that does not read must not hold its viewer.
            let _ = typed.try_send(Typed::Close);
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
