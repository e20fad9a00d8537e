//! Enters the lab by hand: a shell in it, or one command.

use std::fs;
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rvm_outer::{End, Host, Profile, Setup};

/// An emulated riscv64 host with KVM: gives a shell in it, or runs a command and ends with its status.
///
/// The kernel and two guests lie in /lab: Image, tiny.cpio.gz (rvm.run=poweroff|reboot|panic|vdso, else a shell) and
/// bench.cpio.gz. 10.0.2.2 is this machine's loopback.
#[derive(Debug, Parser)]
#[command(name = "lab")]
struct Args {
    /// The kind of host: plain, aia, aia-guests, max, no-kvm, peer.
    #[arg(long, default_value = "aia")]
    profile: String,

    /// Puts a file into the lab: a program into its PATH, or FILE:PLACE wherever it should go.
    #[arg(long, value_name = "FILE[:PLACE]")]
    put: Vec<String>,

    /// Gives a TCP port of the lab one on this machine, and says which.
    #[arg(long, value_name = "PORT")]
    forward: Vec<u16>,

    /// Takes a file from the lab when the command has ended.
    #[arg(long, value_name = "PLACE:FILE")]
    get: Vec<String>,

    /// The command; a shell if there is none.
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(End::Status(status)) => ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)),
        Ok(End::Signal(number)) => {
            ExitCode::from(u8::try_from(number).map_or(u8::MAX, |number| number | 0x80))
        }
        Err(error) => {
            let _ = std::io::Write::write_fmt(&mut stderr(), format_args!("lab: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<End> {
    let mut setup = Setup::new(Profile::named(&args.profile)?);
    for put in &args.put {
        setup = match put.split_once(':') {
            Some((file, place)) => setup.file(
                place,
                0o755,
                fs::read(file).with_context(|| format!("cannot read {file}"))?,
            ),
            None => {
                ensure!(PathBuf::from(put).is_file(), "there is no file {put}");
                setup.program(put)
            }
        };
    }
    for port in &args.forward {
        setup = setup.forward(*port);
    }
    let lab = setup.start()?;
    for port in &args.forward {
        let place = lab.forwarded(*port)?;
        std::io::Write::write_fmt(&mut stderr(), format_args!("lab: port {port} is {place}\n"))?;
    }
    let shell = ["sh".to_owned(), "-i".to_owned()];
    let words = if args.command.is_empty() {
        shell.as_slice()
    } else {
        args.command.as_slice()
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let end = converse(&lab, &words)?;
    for get in &args.get {
        let (place, file) = get
            .split_once(':')
            .with_context(|| format!("{get} is not PLACE:FILE"))?;
        fs::write(file, lab.get(place)?).with_context(|| format!("cannot write {file}"))?;
    }
    Ok(end)
}

/// With a terminal here the command gets one there, so that it may go raw and Ctrl-C reaches it and not us.
fn converse(lab: &impl Host, words: &[&str]) -> Result<End> {
    if stdin().is_terminal() && stdout().is_terminal() {
        let _raw = Raw::enter()?;
        lab.spawn_on_terminal(words)?.converse(stdin(), &mut stdout())
    } else {
        lab.spawn(words)?.converse(stdin(), &mut stdout())
    }
}

/// Our terminal in raw mode, until dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}
