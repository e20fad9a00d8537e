//! `rvm logs`: what a guest has printed.

use std::process::{Output, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;

use crate::lab::{Lab, PATIENCE, stderr, stdout};

impl Lab {
    fn logs(&self, args: &[&str]) -> Child {
        self.command(&[&["logs", "alpine"], args].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts")
    }
}

async fn end(child: Child) -> Output {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.expect("it ends").expect("it can be waited for");
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

#[tokio::test]
async fn what_was_printed_is_printed_while_the_machine_runs_on() {
    let mut lab = Lab::new().await;
    lab.machine_in("Running");
    let logs = lab.logs(&[]);
    let mut console = lab.console().await;
    console
        .write_all(b"booting\nlogin: ")
        .await
        .expect("it is printed");
    let output = end(logs).await;
    assert_eq!(
        (stdout(&output), stderr(&output)),
        ("booting\nlogin: ".to_owned(), String::new())
    );
    let mut typed = Vec::new();
    console.read_to_end(&mut typed).await.expect("it ends");
    assert!(typed.is_empty());
}

#[tokio::test]
async fn the_tail_is_followed_until_the_machine_ends() {
    let mut lab = Lab::new().await;
    lab.machine_in("Running");
    let mut logs = lab.logs(&["-f", "--tail", "1"]);
    let mut console = lab.console().await;
    console
        .write_all(b"one\ntwo\nthree\n")
        .await
        .expect("it is printed");
    let mut first = [0; 6];
    let read = logs.stdout.as_mut().expect("it is piped").read_exact(&mut first);
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("it comes")
        .expect("all of it");
    assert_eq!(&first, b"three\n");
    console.write_all(b"four\n").await.expect("it is printed");
    drop(console);
    assert_eq!(stdout(&end(logs).await), "four\n");
}

#[tokio::test]
async fn who_types_goes_on_typing() {
    let mut lab = Lab::new().await;
    lab.machine_in("Running");
    let mut viewer = lab.command(&["console", "alpine"]);
    let viewer = viewer
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut viewer = viewer.spawn().expect("it starts");
    let mut typing = lab.console().await;
    let logs = lab.logs(&["-f"]);
    drop(lab.console().await);
    end(logs).await;
    let mut keyboard = viewer.stdin.take().expect("it is piped");
    keyboard.write_all(b"still\n").await.expect("it is typed");
    let mut typed = [0; 6];
    tokio::time::timeout(PATIENCE, typing.read_exact(&mut typed))
        .await
        .expect("it arrives")
        .expect("all of it");
    assert_eq!(&typed, b"still\n");
}

#[tokio::test]
async fn logs_that_cannot_be_had_are_refused_with_the_reason() {
    let lab = Lab::with_kubernetes().await;
    lab.machine_in("Scheduling");
    let early = lab.error(&["logs", "alpine", "-f"]).await;
    assert!(
        early.ends_with("it does not run yet; its phase is Scheduling"),
        "{early}"
    );
    let by_kubernetes = ["logs", "alpine", "--kubeconfig", "state/kubeconfig"];
    assert_eq!(lab.error(&by_kubernetes).await, "error: VMI is not running");
}

#[tokio::test]
async fn a_kubeconfigs_user_reads_logs_while_another_types() {
    let mut lab = Lab::with_kubernetes().await;
    lab.machine_in("Running");
    let by_kubernetes = ["--kubeconfig", "state/kubeconfig"];
    let mut viewer = lab.command(&[&["console", "alpine"], &by_kubernetes[..]].concat());
    let viewer = viewer
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut viewer = viewer.spawn().expect("it starts");
    let mut typing = lab.console().await;
    let logs = lab.logs(&by_kubernetes);
    let mut console = lab.console().await;
    console
        .write_all(b"booting\nlogin: ")
        .await
        .expect("it is printed");
    assert_eq!(stdout(&end(logs).await), "booting\nlogin: ");
    let mut keyboard = viewer.stdin.take().expect("it is piped");
    keyboard.write_all(b"still\n").await.expect("it is typed");
    let mut typed = [0; 6];
    tokio::time::timeout(PATIENCE, typing.read_exact(&mut typed))
        .await
        .expect("it arrives")
        .expect("all of it");
    assert_eq!(&typed, b"still\n");
    let asked = lab.asked.lock().expect("nobody panics").clone();
    let console =
        "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/alpine/console";
    assert!(
        asked.contains(&format!("GET {console}?readOnly=true")),
        "{asked:?}"
    );
}
