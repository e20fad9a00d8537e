//! The session on the console: the image's shell, with a terminal of its own.
//!
//! Between fork and exec only code that we may not write safely could run, so we start ourselves anew with the word
//! `session`, become the leader of the console's session as an ordinary program, and turn into the shell.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};

use rustix::process::{ioctl_tiocsctty, setsid};

use crate::cmdline::Options;
use crate::say;

/// The first argument that turns us into the session.
pub const WORD: &str = "session";

/// The kernel keeps our file through this link even if somebody in the guest removes it.
const OURSELVES: &str = "/proc/self/exe";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a shell as small as busybox's needs to show `vmi-alpine:~# `.
const PROMPT: &str = r"\h:\w\$ ";

/// Starts the session of `options`.
pub fn start(options: &Options) -> io::Result<Child> {
    Command::new(OURSELVES)
        .arg(WORD)
        .args(&options.entrypoint)
        .env_clear()
        .envs([
            ("HOME", "/root"),
            ("USER", "root"),
            ("LOGNAME", "root"),
            ("PATH", PATH),
        ])
        .envs([("SHELL", "/bin/sh"), ("TERM", "vt220"), ("PS1", PROMPT)])
        .spawn()
}

/// Becomes the session: `arguments` are the program and what it is given.
pub fn become_it(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(program) = arguments.next() else {
        return ExitCode::FAILURE;
    };
    if let Err(error) = take_console() {
        say::problem("no job control on this console", error);
    }
    if std::env::set_current_dir("/root").is_err() {
        let _ = std::env::set_current_dir("/");
    }
    let error = Command::new(&program).args(arguments).exec();
    say::problem(&format!("cannot start {}", program.to_string_lossy()), error);
    ExitCode::FAILURE
}

fn take_console() -> io::Result<()> {
    setsid()?;
    let console = say::open_console()?;
    say::attach(&console);
    Ok(ioctl_tiocsctty(&console)?)
}
