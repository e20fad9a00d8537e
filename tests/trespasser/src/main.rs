//! Goes behind rvmm's walls as one of its threads does, and then does one thing that is forbidden there.
//!
//! `rvm-trespasser THREAD DEED FILE`: FILE is the one file that the machine may read. The walls end the process with
//! status 1 and a line of their own, or the kernel refuses the deed: `refused: …` and status 2. Whoever gets through says
//! `got through` and ends with status 0. `rvm-trespasser as UID PROGRAM …` becomes a user and runs a program.

mod deeds;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use rvmm_sandbox::{Emulator, KvmRequests, Plan, Sandbox, Thread, Walls};
use rvmm_spec::{Boot, Spec};

use deeds::Deed;

/// The status of a deed that the kernel refused.
const REFUSED: u8 = 2;
/// The status of a call that makes no sense, or of walls that did not go up.
const USAGE: u8 = 3;

fn main() -> ExitCode {
    let (text, status) = match run() {
        Ok(Ok(())) => ("got through".to_owned(), 0),
        Ok(Err(error)) => (format!("refused: {error}"), REFUSED),
        Err(error) => (format!("rvm-trespasser: {error:#}"), USAGE),
    };
    // Nobody may be there to hear it.
    writeln!(std::io::stdout(), "{text}").ok();
    ExitCode::from(status)
}

/// The outer error: no deed was done.
fn run() -> Result<std::io::Result<()>> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [first, user, program, arguments @ ..] = words.as_slice()
        && first == "as"
    {
        let user = user.to_string_lossy().parse()?;
        let error = Command::new(program).args(arguments).uid(user).gid(user).exec();
        return Err(error.into());
    }
    let [thread, deed, file] = words.as_slice() else {
        bail!("THREAD DEED FILE are needed")
    };
    let thread = thread_named(&thread.to_string_lossy())?;
    let deed = Deed::named(&deed.to_string_lossy())?;
    let spec = Spec::builder(Boot::new(file)).build()?;
    let emulator = Emulator {
        program: Path::new("/bin/true"),
        firmware: None,
        work_dir: Path::new("/nonexistent"),
    };
    let walls = Walls::raise(&Plan {
        spec: &spec,
        run_dir: None,
        emulator: (thread == Thread::Launcher).then_some(emulator),
        kvm: KvmRequests::default(),
    })?;
    if thread == Thread::Launcher {
        return on_thread(move || {
            walls.confine_launcher()?;
            Ok(deed.do_it())
        });
    }
    let sandbox = walls.confine_main()?;
    if thread == Thread::Main {
        return Ok(deed.do_it());
    }
    on_thread(move || confined(sandbox, thread, deed))
}

fn confined(sandbox: Sandbox, thread: Thread, deed: Deed) -> Result<std::io::Result<()>> {
    sandbox.confine(thread)?;
    Ok(deed.do_it())
}

fn on_thread(
    run: impl FnOnce() -> Result<std::io::Result<()>> + Send + 'static,
) -> Result<std::io::Result<()>> {
    let thread = std::thread::Builder::new()
        .name("trespasser".to_owned())
        .spawn(run)?;
    thread.join().ok().context("the thread panicked")?
}

fn thread_named(name: &str) -> Result<Thread> {
    let kinds = [Thread::Main, Thread::Vcpu, Thread::Disk, Thread::Launcher];
    let found = kinds.into_iter().find(|kind| kind.name() == name);
    found.with_context(|| format!("there is no thread '{name}'"))
}
