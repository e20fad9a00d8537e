//! `rvm console` on a real pseudo-terminal and on pipes.

use std::process::{ExitStatus, Stdio};

use crate::lab::{Lab, PATIENCE, stderr, stdout};
use crate::terminal::Terminal;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

const BANNER: &str = "Successfully connected to alpine console. Press Ctrl+] or Ctrl+5 to exit console.";

async fn ends(child: &mut Child) -> ExitStatus {
    tokio::time::timeout(PATIENCE, child.wait())
        .await
        .expect("it ends")
        .expect("it has a status")
}

/// A machine that runs, with a viewer on a terminal that is raw by now.
async fn attached() -> (Lab, Terminal, Child, rvm_server::fake::FakeConsole) {
    let mut lab = Lab::new().await;
    lab.machine_in("Running");
    let terminal = Terminal::new();
    let child = lab.spawn_on(&terminal.device, &["console", "alpine"]);
    let mut console = lab.console().await;
    console.write_all(b"login: ").await.expect("is printed");
    terminal.shows("login: ").await;
    (lab, terminal, child, console)
}

#[tokio::test]
async fn the_escape_key_detaches_with_status_0_and_restores_the_terminal() {
    let (_lab, terminal, mut child, mut console) = attached().await;
    assert!(terminal.is_raw());
    terminal.keys(b"root\r\x1d");
    assert_eq!(ends(&mut child).await.code(), Some(0));
    assert_eq!(terminal.modes(), terminal.before);
    let mut typed = String::new();
    console.read_to_string(&mut typed).await.unwrap();
    assert_eq!(typed, "root\r");
}

#[tokio::test]
async fn control_c_and_control_z_reach_the_guest() {
    let (_lab, terminal, _child, mut console) = attached().await;
    terminal.keys(b"\x03\x1a\x1c");
    let mut typed = [0; 3];
    console.read_exact(&mut typed).await.unwrap();
    assert_eq!(&typed, b"\x03\x1a\x1c");
}

#[tokio::test]
async fn the_banner_comes_before_the_backlog() {
    let mut lab = Lab::new().await;
    lab.machine_in("Running");
    let terminal = Terminal::new();
    let _child = lab.spawn_on(&terminal.device, &["console", "alpine"]);
    lab.console()
        .await
        .write_all(b"[    0.000000] Linux version")
        .await
        .unwrap();
    let screen = terminal.shows("Linux version").await;
    assert!(
        screen.find(BANNER).unwrap() < screen.find("Linux version").unwrap(),
        "{screen}"
    );
}

#[tokio::test]
async fn the_machines_end_ends_the_console_and_restores_the_terminal() {
    let (lab, terminal, mut child, console) = attached().await;
    lab.machine_in("Succeeded");
    drop(console);
    assert_eq!(ends(&mut child).await.code(), Some(0));
    assert_eq!(terminal.modes(), terminal.before);
    terminal.shows("alpine has ended (Succeeded).").await;
}

#[tokio::test]
async fn who_is_taken_over_is_told_and_goes_on_looking() {
    let (mut lab, terminal, _child, mut console) = attached().await;
    let other = Terminal::new();
    let _second = lab.spawn_on(&other.device, &["console", "alpine"]);
    let _theirs = lab.console().await;
    terminal.shows("Somebody else types at this console now").await;
    console.write_all(b"still here").await.unwrap();
    terminal.shows("still here").await;
}

#[tokio::test]
async fn a_connection_that_breaks_is_an_error_and_restores_the_terminal() {
    let mut lab = Lab::new().await;
    lab.machine_in("Running");
    let (server, relay) = lab.relay();
    let terminal = Terminal::new();
    let mut child = lab.spawn_on(&terminal.device, &["--server", &server, "console", "alpine"]);
    let mut console = lab.console().await;
    console.write_all(b"login: ").await.unwrap();
    terminal.shows("login: ").await;
    assert!(terminal.is_raw());
    relay.abort();
    assert_eq!(ends(&mut child).await.code(), Some(1));
    assert_eq!(terminal.modes(), terminal.before);
    assert!(terminal.shows("error:").await.contains("error:"));
}

async fn signal_restores(signal: Signal, name: &'static str) {
    let (_lab, terminal, mut child, _console) = attached().await;
    let pid = i32::try_from(child.id().expect("it runs")).expect("a pid");
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("it is there");
    assert_eq!(ends(&mut child).await.code(), Some(1));
    assert_eq!(terminal.modes(), terminal.before);
    assert!(terminal.shows(name).await.contains(name));
}

#[tokio::test]
async fn sigterm_restores_the_terminal() {
    signal_restores(Signal::TERM, "SIGTERM").await;
}

#[tokio::test]
async fn sigint_restores_the_terminal() {
    signal_restores(Signal::INT, "SIGINT").await;
}

#[tokio::test]
async fn sighup_restores_the_terminal() {
    signal_restores(Signal::HUP, "SIGHUP").await;
}

#[tokio::test]
async fn a_machine_that_has_yet_to_start_is_waited_for() {
    let mut lab = Lab::new().await;
    lab.machine_in("Scheduling");
    let terminal = Terminal::new();
    let mut child = lab.spawn_on(&terminal.device, &["console", "alpine"]);
    terminal.shows("Waiting for alpine: Scheduling").await;
    lab.machine_in("Running");
    let console = lab.console().await;
    drop(console);
    assert_eq!(ends(&mut child).await.code(), Some(0));
}

#[tokio::test]
async fn waiting_has_an_end() {
    let lab = Lab::new().await;
    lab.machine_in("Scheduling");
    let error = lab.error(&["console", "alpine", "--timeout", "1s"]).await;
    assert_eq!(
        error,
        "error: timed out: the console of \"alpine\" cannot be opened: it does not run yet; its phase is Scheduling"
    );
}

#[tokio::test]
async fn a_machine_that_has_ended_is_not_waited_for() {
    let lab = Lab::new().await;
    lab.machine_in("Failed");
    let error = lab.error(&["console", "alpine"]).await;
    assert_eq!(
        error,
        "error: the console of \"alpine\" cannot be opened: it has ended; its phase is Failed"
    );
}

#[tokio::test]
async fn a_script_that_has_no_more_to_type_still_reads_to_the_end() {
    let mut lab = Lab::new().await;
    lab.machine_in("Running");
    let mut command = lab.command(&["console", "alpine"]);
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"uname -m\n").await.unwrap();
    drop(stdin);
    let mut console = lab.console().await;
    let mut typed = [0; 9];
    console.read_exact(&mut typed).await.unwrap();
    console.write_all(b"riscv64\n").await.unwrap();
    lab.machine_in("Succeeded");
    drop(console);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((&typed, output.status.code()), (b"uname -m\n", Some(0)));
    assert_eq!(stdout(&output), "riscv64\n");
    assert!(
        stderr(&output).ends_with("alpine has ended (Succeeded).\n"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn until_ends_when_its_text_appears() {
    let mut lab = Lab::new().await;
    lab.machine_in("Running");
    let mut command = lab.command(&["console", "alpine", "--until", "login:"]);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut console = lab.console().await;
    console.write_all(b"Welcome\nalpine lo").await.unwrap();
    console.write_all(b"gin: ").await.unwrap();
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stdout(&output).starts_with("Welcome\nalpine login:"),
        "{}",
        stdout(&output)
    );
}

#[tokio::test]
async fn until_fails_when_the_machine_ends_or_time_runs_out_first() {
    let mut lab = Lab::new().await;
    lab.machine_in("Running");
    let late = lab
        .error(&["console", "alpine", "--until", "login:", "--timeout", "1s"])
        .await;
    assert_eq!(late, "error: timed out before \"login:\" was printed");
    drop(lab.console().await);
    let mut command = lab.command(&["console", "alpine", "--until", "login:"]);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let console = lab.console().await;
    lab.machine_in("Failed");
    drop(console);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).ends_with("error: alpine has ended (Failed) before it printed \"login:\"\n"));
}
