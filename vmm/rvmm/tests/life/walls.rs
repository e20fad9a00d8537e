//! The walls around rvmm and around its QEMU, seen from outside.

use std::fs;
use std::os::unix::fs::symlink;

use rvmm_control::{EndReason, Request, State};

use crate::stage::{Rvmm, Stage};

/// Lines of a thread's `status` that its walls show in.
const SHOWN: [&str; 3] = ["CapEff:", "NoNewPrivs:", "Seccomp:"];

/// What they say of a thread with nothing to spare.
const WALLED_IN: &str = "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";

/// Each thread of a running rvmm, by name, with what its status says of the walls.
fn threads(machine: &Rvmm) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", machine.child.id())).unwrap();
    let mut threads: Vec<_> = tasks
        .map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap())
        .map(|status| {
            let name = status.lines().next().unwrap().trim_start_matches("Name:\t");
            let shown = status
                .lines()
                .filter(|line| SHOWN.iter().any(|key| line.starts_with(key)));
            (name.to_owned(), shown.map(|line| format!("{line}\n")).collect())
        })
        .collect();
    threads.sort();
    threads
}

#[test]
fn every_thread_of_a_running_rvmm_is_behind_its_walls() {
    let stage = Stage::new();
    let machine = stage.start("exec sleep 1000");
    stage.client_when(State::Running);
    let walled_in = |name: &str| (name.to_owned(), WALLED_IN.to_owned());
    assert_eq!(threads(&machine), ["launcher", "rvmm"].map(walled_in));
    let limits = fs::read_to_string(format!("/proc/{}/limits", machine.child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
}

#[test]
fn qemu_inherits_the_walls_of_its_starter() {
    let stage = Stage::new();
    let act = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status >&$uart; \
               touch was-here 2>/dev/null || echo kept in >&$uart; shutdown guest-shutdown";
    assert_eq!(stage.start(act).status(), Some(0));
    let said = fs::read_to_string(stage.run_dir().console_log()).unwrap();
    assert_eq!(said, format!("{WALLED_IN}kept in\n"));
    assert!(!stage.path("was-here").exists());
}

#[test]
fn a_path_that_leads_elsewhere_after_the_start_is_not_followed() {
    let stage = Stage::new();
    fs::write(stage.path("disk"), [0; 4096]).unwrap();
    fs::write(stage.path("another"), [0; 4096]).unwrap();
    let machine = stage.start_with(&["--disk", "disk"], "exec sleep 1000");
    let mut client = stage.client_when(State::Running);
    fs::remove_file(stage.path("disk")).unwrap();
    symlink(stage.path("another"), stage.path("disk")).unwrap();
    client.perform(Request::Reset).unwrap();
    assert_eq!(machine.status(), Some(1));
    let ending = stage.ending();
    assert_eq!(ending.reason, EndReason::Failed);
    assert!(
        ending.message.contains("'disk'") && ending.message.ends_with("Permission denied (os error 13)"),
        "{}",
        ending.message
    );
}

#[test]
fn without_the_sandbox_rvmm_says_so_and_has_no_walls() {
    let stage = Stage::new();
    let act = "touch was-here; shutdown guest-shutdown";
    let words = [
        "--kernel",
        "Image",
        "--accel",
        "tcg",
        "--run-dir",
        "vm",
        "--sandbox",
        "off",
    ];
    let output = stage.run(&[&words[..], &["--cmdline", act]].concat());
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the sandbox is off"), "{said}");
    assert!(stage.path("was-here").exists());
}
