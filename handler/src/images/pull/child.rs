//! The process that pulls one image: `rvm-handler pull-image`.
//!
//! What a registry sends is hostile, and the library that speaks to it reads answers of any length into memory. So it runs in
//! a process of its own with an address space of its own, [`MEMORY`] at most: what goes wrong there ends this process, and the handler tells.
//! It gets a [`Job`] as one line on standard input and says [`Said`] as lines on standard output. When standard input ends,
//! its handler is gone, and so is it.

use std::cell::Cell;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::fetch::{self, FetchError};
use super::job::{Job, Said};
use crate::images::store::Store;
use crate::status::bounded;
use crate::steps::chain;

/// The word on the command line.
pub const WORD: &str = "pull-image";

/// Most address space. Much of it is only reserved, by the allocator and by threads.
const MEMORY: u64 = 512 << 20;

/// Longest job.
const MAX_JOB: u64 = 1 << 20;

/// Progress is told each time so many bytes have come, or so large a part of the image.
const PROGRESS: u64 = 4 << 20;
const PROGRESS_PARTS: u64 = 20;

/// Does one job.
pub fn main() -> ExitCode {
    let said = match work() {
        Ok(said) => said,
        Err(error) => Said::Failed(error),
    };
    let done = matches!(said, Said::Done(_));
    say(&said);
    if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn work() -> Result<Said, String> {
    wall_in().map_err(|error| format!("the process that pulls cannot be limited: {error}"))?;
    let mut line = String::new();
    let read = io::stdin().lock().take(MAX_JOB).read_line(&mut line);
    read.map_err(|error| format!("no job came: {error}"))?;
    let job: Job = serde_json::from_str(&line).map_err(|error| format!("no job came: {error}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let (gone, is_gone) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        io::copy(&mut io::stdin().lock(), &mut io::sink()).ok();
        drop(gone);
    });
    let done = runtime.block_on(async {
        tokio::select! {
            done = pull(&job) => Some(done),
            _ = is_gone => None,
        }
    });
    // What still waits for a lock is not waited for.
    runtime.shutdown_background();
    match done {
        Some(Ok(said)) => Ok(said),
        Some(Err(error)) => Err(bounded(&chain(&error))),
        None => Err("its handler is gone".to_owned()),
    }
}

async fn pull(job: &Job) -> Result<Said, FetchError> {
    let store = Store::open(&job.store)?;
    let told = Cell::new(0);
    let tell = |have, total| {
        if have >= told.get() + PROGRESS.max(total / PROGRESS_PARTS) {
            told.set(have);
            say(&Said::Progress(have, total));
        }
    };
    Ok(Said::Done(fetch::fetch(job, &store, &tell).await?))
}

/// Nothing here may take the node's memory, or write it down.
fn wall_in() -> io::Result<()> {
    let limit = |most| Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(Resource::As, limit(MEMORY))?;
    Ok(setrlimit(Resource::Core, limit(0))?)
}

fn say(said: &Said) {
    let Ok(mut line) = serde_json::to_vec(said) else {
        return;
    };
    line.push(b'\n');
    // Who does not listen is gone, which ends us anyway.
    io::stdout().lock().write_all(&line).ok();
}
