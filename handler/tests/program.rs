//! `rvm-handler` as a program: what it says to those who start it wrongly, and what it leaves.

#![expect(
    clippy::unwrap_used,
    reason = "tests fail by panic, outside of test functions too"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn handler(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rvm-handler"))
        .args(arguments)
        .arg("--run-dir")
        .arg(folder.join("run"))
        .arg("--state-dir")
        .arg(folder.join("state"))
        .args(["--rvmm", "/bin/true"])
        .env_remove("KUBECONFIG")
        .output()
        .unwrap()
}

/// The exit status and the one line that was said.
fn refusal(output: &Output) -> (Option<i32>, String) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    (output.status.code(), said.trim_end().to_owned())
}

#[test]
fn a_wrong_command_line_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = |arguments: &[&str]| refusal(&handler(folder.path(), arguments));
    let said = |line: &str| (Some(2), format!("rvm-handler: {line}; see rvm-handler --help"));
    assert_eq!(
        wrong(&["--frobnicate"]),
        said("unexpected argument '--frobnicate' found")
    );
    assert_eq!(
        wrong(&["--local", "--listen", "0.0.0.0:1"]),
        said(
            "invalid value '0.0.0.0:1' for '--listen <PORT|127.0.0.1:PORT>': only loopback addresses are served"
        )
    );
    let (status, missing) = wrong(&["--grpc-listen", "127.0.0.1:1", "--tls-cert", "c"]);
    assert_eq!(status, Some(2));
    assert!(missing.contains("--tls-key <FILE>"), "{missing}");
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[test]
fn a_node_name_that_kubernetes_would_not_take_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (status, said) = refusal(&handler(folder.path(), &["--local", "--node", "../n1"]));
    assert_eq!(status, Some(1));
    assert!(
        said.starts_with("rvm-handler: '../n1' cannot be a node's name"),
        "{said}"
    );
}

#[test]
fn a_run_directory_that_others_can_open_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    let (status, said) = refusal(&handler(folder.path(), &["--local"]));
    assert_eq!(status, Some(1));
    assert!(
        said.ends_with("has mode 0755 and may be opened by other users: chmod 700 it, or name another"),
        "{said}"
    );
    assert!(fs::read_dir(&run).unwrap().next().is_none() && !folder.path().join("state").exists());
}
