//! `rvm logs`: what a guest has printed, read from its console as one who only looks.
//!
//! A console begins with its history and goes on with what is printed; nothing marks where the one ends. The history comes at
//! once, though, so it is over when nothing more comes for a while, or when more has come than a machine keeps.
//!
//! By Kubernetes it is the same console, by the same right of the user's, as one who only looks: what reads a log must take nothing from who
//! types.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use super::machine::Machine;
use super::{Attached, Attempt, print};
use crate::args::{Global, Logs};
use crate::verbs::bare_name;

/// The most that a machine keeps of what its guest printed.
const HISTORY: usize = 256 << 10;
/// How long nothing comes when the history is over.
const SILENCE: Duration = Duration::from_secs(1);
/// How long history is taken from a guest that is never silent.
const ENOUGH: Duration = Duration::from_secs(10);

type Seen = BoxStream<'static, Result<Bytes>>;

pub async fn run(global: &Global, args: &Logs) -> Result<()> {
    let name = bare_name(&args.name)?;
    // What stands for the keyboard is kept until the end: who lets it go has no more to type.
    let Attached {
        typed: _typed,
        mut seen,
    } = match Machine::find(global, name, true).await?.attach().await? {
        Attempt::Attached(console) => console,
        Attempt::Early(why) => return Err(why),
    };
    if !args.follow || args.tail.is_some() {
        let history = history(&mut seen).await?;
        let mut stdout = tokio::io::stdout();
        stdout.write_all(tail(&history, args.tail)).await?;
        stdout.flush().await?;
    }
    if args.follow {
        print(seen, None).await?;
    }
    Ok(())
}

/// What was printed before.
async fn history(seen: &mut Seen) -> Result<Vec<u8>> {
    let mut history = Vec::new();
    let enough = Instant::now() + ENOUGH;
    while history.len() < HISTORY {
        let silent = Instant::now() + SILENCE;
        match timeout_at(silent.min(enough), seen.next()).await {
            Ok(Some(output)) => history.extend_from_slice(&output?),
            Ok(None) | Err(_) => break,
        }
    }
    Ok(history)
}

/// The last lines; one that has no end yet is one, too.
fn tail(history: &[u8], lines: Option<usize>) -> &[u8] {
    let Some(lines) = lines else { return history };
    let Some(before) = lines.checked_sub(1) else {
        return &[];
    };
    let whole = history.strip_suffix(b"\n").unwrap_or(history);
    let ends = whole.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let start = ends.map(|(at, _)| at + 1).nth(before).unwrap_or(0);
    history.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_as_many_as_there_are_at_most() {
        let text = b"one\ntwo\nthree\n";
        assert_eq!(tail(text, None), text);
        assert_eq!(tail(text, Some(0)), b"");
        assert_eq!(tail(text, Some(1)), b"three\n");
        assert_eq!(tail(text, Some(2)), b"two\nthree\n");
        assert_eq!(tail(text, Some(9)), text);
        assert_eq!(tail(b"one\nlogin: ", Some(1)), b"login: ");
        assert_eq!(tail(b"", Some(1)), b"");
    }
}
