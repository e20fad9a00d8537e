//! What the shell gets back of its terminal, on every way out, and what a job in the background may do to it.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::stage::{RVMM, Stage};

/// A shell on a terminal of its own.
struct Shell {
    master: std::fs::File,
    child: Child,
    seen: String,
}

impl Shell {
    /// Runs a script; `$rvmm` in it is rvmm with a machine whose QEMU does what follows it.
    fn run(stage: &Stage, script: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let end: OwnedFd = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let rvmm = format!("{RVMM} --accel tcg --kernel Image --cmdline");
        let child = stage
            .command("setsid")
            .args(["--ctty", "--wait", "bash", "--norc", "-c"])
            .arg(script.replace("$rvmm", &rvmm))
            .stdin(Stdio::from(end.try_clone().unwrap()))
            .stdout(Stdio::from(end.try_clone().unwrap()))
            .stderr(Stdio::from(end))
            .spawn()
            .unwrap();
        Self {
            master: master.into(),
            child,
            seen: String::new(),
        }
    }

    /// Reads on until this was shown.
    fn expect(&mut self, text: &str) {
        let mut piece = [0; 1024];
        while !self.seen.contains(text) {
            // A terminal that nobody has open any more says EIO.
            let count = self.master.read(&mut piece).unwrap_or(0);
            assert!(count > 0, "no '{text}' in: {}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        self.seen = self.seen.split_once(text).unwrap().1.to_owned();
    }

    fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Compares the settings before and after.
const COMPARED: &str =
    "before=$(stty -g); RUN; echo status=$?; [[ $before == $(stty -g) ]] && echo 'as it was'";

fn restored(run: &str, status: &str) {
    let stage = Stage::new();
    let mut shell = Shell::run(&stage, &COMPARED.replace("RUN", run));
    shell.expect(&format!("status={status}\r\n"));
    shell.expect("as it was");
}

#[test]
fn the_terminal_is_as_it_was_after_each_way_to_end() {
    restored("$rvmm 'shutdown guest-shutdown'", "0");
    restored("$rvmm 'shutdown guest-reset' --on-reset exit", "3");
    restored("$rvmm 'before:exit 1'", "1");
    restored("$rvmm 'exit 1'", "1");
    restored("$rvmm 'kill -TERM $PPID; exec sleep 1000'", "143");
    restored("$rvmm 'kill -HUP $PPID; exec sleep 1000'", "129");
}

#[test]
fn ctrl_bracket_leaves_a_terminal_as_it_was() {
    let stage = Stage::new();
    let mut shell = Shell::run(
        &stage,
        &COMPARED.replace("RUN", "$rvmm 'echo -n UP >&$uart; exec sleep 1000'"),
    );
    shell.expect("UP");
    shell.send("\x1d");
    shell.expect("status=0\r\n");
    shell.expect("as it was");
}

#[test]
fn a_job_in_the_background_shows_its_output_and_leaves_the_terminal_alone() {
    let stage = Stage::new();
    let act = "echo -n UP >&$uart; read -rN 3 x <&$uart; echo -n GOT$x >&$uart; shutdown guest-shutdown";
    let mut shell = Shell::run(
        &stage,
        &format!(
            "set -m; before=$(stty -g); $rvmm '{act}' & read -r line; [[ $before == $(stty -g) ]] && echo untouched; \
             jobs; fg; echo status=$?; [[ $before == $(stty -g) ]] && echo 'as it was'"
        ),
    );
    shell.expect("UP");
    // Typed for the shell, which has the terminal.
    shell.send("for the shell\r");
    shell.expect("untouched");
    shell.expect("Running");
    // The shell says what it brings to the front.
    shell.expect("--accel");
    shell.send("abc");
    shell.expect("GOTabc");
    shell.expect("status=0\r\n");
    shell.expect("as it was");
}

#[test]
fn a_job_that_is_stopped_gives_the_terminal_back_and_takes_it_again() {
    let stage = Stage::new();
    let act = "echo -n UP >&$uart; kill -TSTP $PPID; read -rN 3 x <&$uart; echo -n GOT$x >&$uart; shutdown guest-shutdown";
    let mut shell = Shell::run(
        &stage,
        &format!(
            "set -m; before=$(stty -g); $rvmm '{act}'; echo stopped=$?; [[ $before == $(stty -g) ]] && echo given; \
             fg; echo status=$?; [[ $before == $(stty -g) ]] && echo 'as it was'"
        ),
    );
    shell.expect("UP");
    shell.expect("stopped=147\r\n");
    shell.expect("given");
    shell.expect("--accel");
    shell.send("abc");
    shell.expect("GOTabc");
    shell.expect("status=0\r\n");
    shell.expect("as it was");
}
