//! Words to the console. They may be lost; nobody is there to tell.

use std::fs::{File, OpenOptions};
use std::io::Write;

/// The guest's console, whichever device the kernel's command line made it.
pub const CONSOLE: &str = "/dev/console";

/// Writes one line to the console.
pub fn line(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Says what did not work; the guest goes on without.
pub fn problem(what: &str, error: impl std::fmt::Display) {
    line(&format!("rvm-init: {what}: {error}"));
}

/// Opens the console for reading and writing.
pub fn open_console() -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(CONSOLE)
}

/// Points our three standard streams at the console: those the kernel gave us are of a `/dev` that is covered now.
pub fn to_console() {
    match open_console() {
        Ok(console) => attach(&console),
        Err(error) => problem("cannot open the console", error),
    }
}

/// Makes `console` all three standard streams.
pub fn attach(console: &File) {
    let _ = rustix::stdio::dup2_stdin(console);
    let _ = rustix::stdio::dup2_stdout(console);
    let _ = rustix::stdio::dup2_stderr(console);
}
