//! What a test can rely on when it runs commands: the same code serves this machine and the lab.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use rvm_outer::{Assets, End, Here, Host, Session, Signal};

const SOON: Duration = Duration::from_secs(60);

fn here() -> Here {
    let none = String::new;
    Here::with(
        &[],
        Assets {
            kernel: none(),
            tiny: none(),
            bench: none(),
        },
    )
    .unwrap()
}

fn shell(host: &Here, script: &str) -> Session {
    host.spawn(&["sh", "-c", script]).unwrap()
}

/// Says a process's number and then waits for good.
fn number_of_a_background_process(session: &mut Session) -> String {
    session.expect("is ", SOON).unwrap();
    session.expect("\n", SOON).unwrap().trim().to_owned()
}

fn wait_until_gone(host: &Here, number: &str) {
    let script = format!(
        "while [ -e /proc/{number} ] && ! grep -q '^State:.Z' /proc/{number}/status; do sleep 0.05; done"
    );
    host.run_within(&["sh", "-c", &script], SOON)
        .unwrap()
        .ok()
        .unwrap();
}

#[test]
fn output_errors_and_status_come_back() {
    let output = here()
        .run(&["sh", "-c", "echo out; echo err >&2; exit 3"])
        .unwrap();
    assert_eq!(
        (
            output.text().as_str(),
            output.error_text().as_str(),
            output.status()
        ),
        ("out\n", "err\n", Some(3))
    );
    let error = output.ok().unwrap_err().to_string();
    assert_eq!(error, "ended with Status(3): err\nout\n");
}

#[test]
fn a_command_that_is_not_there_is_named() {
    let host = here();
    let missing = host.run(&["sh", "-c", "exec rvm-no-such-command"]).unwrap();
    assert_eq!(missing.status(), Some(127));
    let nothing = host.spawn(&[]).unwrap().wait(SOON).unwrap_err();
    assert_eq!(nothing.to_string(), ": no command given");
}

#[test]
fn a_command_reads_what_is_sent_and_sees_its_end() {
    let host = here();
    let mut cat = host.spawn(&["cat"]).unwrap();
    cat.send("one\ntwo\n").unwrap();
    cat.expect("two", SOON).unwrap();
    cat.end_input().unwrap();
    assert_eq!(cat.wait(SOON).unwrap().text(), "one\ntwo\n");
}

#[test]
fn expect_reads_on_from_where_it_stopped() {
    let host = here();
    let mut session = shell(&host, "echo boot 1; echo boot 2; cat");
    assert_eq!(session.expect("boot", SOON).unwrap(), "boot");
    assert_eq!(session.expect("boot", SOON).unwrap(), " 1\nboot");
    let late = session
        .expect("boot", Duration::from_millis(10))
        .unwrap_err()
        .to_string();
    assert!(
        late.contains("did not say \"boot\" within 0 s; it said:\nboot 1\nboot 2\n"),
        "{late}"
    );
    session.end_input().unwrap();
    let over = session.expect("boot 3", SOON).unwrap_err().to_string();
    assert!(over.contains("never said \"boot 3\""), "{over}");
}

#[test]
fn a_signal_reaches_the_command_and_is_its_end() {
    let host = here();
    let mut session = shell(&host, "echo up; exec sleep 1000");
    session.expect("up", SOON).unwrap();
    session.kill(Signal::TERM).unwrap();
    assert_eq!(
        session.wait(SOON).unwrap().end,
        End::Signal(Signal::TERM.as_raw())
    );
}

#[test]
fn a_command_on_a_terminal_has_one_and_takes_control_characters() {
    let host = here();
    let script = "test -t 0 && test -t 1 && test -t 2 && stty size; exec sleep 1000";
    let mut session = host.spawn_on_terminal(&["sh", "-c", script]).unwrap();
    session.expect("24 80", SOON).unwrap();
    session.send([3]).unwrap();
    assert_eq!(session.wait(SOON).unwrap().end, End::Signal(Signal::INT.as_raw()));
}

#[test]
fn dropping_a_session_kills_all_that_it_started() {
    let host = here();
    let mut session = shell(&host, "sleep 1000 & echo it is $!; wait");
    let number = number_of_a_background_process(&mut session);
    drop(session);
    wait_until_gone(&host, &number);
}

#[test]
fn what_a_command_leaves_in_the_background_stays_when_it_ends() {
    let host = here();
    let mut session = shell(&host, "sleep 1000 & echo it is $!");
    let number = number_of_a_background_process(&mut session);
    assert_eq!(session.wait(SOON).unwrap().status(), Some(0));
    drop(session);
    host.run(&["kill", &number]).unwrap().ok().unwrap();
    wait_until_gone(&host, &number);
}

#[test]
fn files_go_there_and_back_whole() {
    let host = here();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    host.put("folder/data", &bytes).unwrap();
    assert_eq!(host.get("folder/data").unwrap(), bytes);
    host.put_as("program", 0o755, b"#!/bin/sh\necho ran\n").unwrap();
    assert_eq!(host.run(&["./program"]).unwrap().ok().unwrap(), "ran\n");
}

#[test]
fn a_file_that_cannot_be_read_or_written_is_named() {
    let host = here();
    let missing = format!("{:#}", host.get("nowhere").unwrap_err());
    assert!(
        missing.contains("cannot get") && missing.contains("nowhere: No such file"),
        "{missing}"
    );
    host.put("file", b"").unwrap();
    let refused = format!("{:#}", host.put("file/below", &[0; 1 << 20]).unwrap_err());
    assert!(
        refused.contains("cannot put") && refused.contains("cannot make"),
        "{refused}"
    );
}

#[test]
fn relative_paths_start_in_a_folder_that_goes_with_the_host() {
    let host = here();
    let folder = host.run(&["pwd"]).unwrap().ok().unwrap();
    assert_eq!(folder.trim(), host.folder().to_str().unwrap());
    drop(host);
    assert!(!std::path::Path::new(folder.trim()).exists());
}
