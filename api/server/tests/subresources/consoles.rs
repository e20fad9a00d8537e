//! Consoles.

use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::lab::{BASE, Lab, PATIENCE, binary, bytes, ends_abruptly, next};

#[tokio::test]
async fn a_console_is_raw_bytes_both_ways() {
    let mut lab = Lab::new("Running").await;
    let (mut viewer, mut machine) = lab.attach().await;
    machine.write_all(b"login: \xff\x00").await.unwrap();
    assert_eq!(bytes(&mut viewer, 9).await, b"login: \xff\x00");
    viewer.send(binary(b"ro")).await.unwrap();
    // Nobody sends text; what does is not typed.
    viewer.send(Message::text("typed by nobody")).await.unwrap();
    viewer.send(binary(b"ot\r")).await.unwrap();
    let mut typed = [0; 5];
    machine.read_exact(&mut typed).await.unwrap();
    assert_eq!(&typed, b"root\r");
}

#[tokio::test]
async fn a_message_in_fragments_is_typed_whole() {
    let mut lab = Lab::new("Running").await;
    let (mut viewer, mut machine) = lab.attach().await;
    let parts = [
        Frame::message(b"one ".to_vec(), OpCode::Data(Data::Binary), false),
        Frame::ping(b"?".to_vec()),
        Frame::message(b"two".to_vec(), OpCode::Data(Data::Continue), true),
    ];
    for part in parts {
        viewer.send(Message::Frame(part)).await.unwrap();
    }
    let mut typed = [0; 7];
    machine.read_exact(&mut typed).await.unwrap();
    assert_eq!(&typed, b"one two");
    assert_eq!(
        next(&mut viewer).await.unwrap().unwrap(),
        Message::Pong("?".into())
    );
}

#[tokio::test]
async fn a_console_that_ends_is_closed_normally() {
    let mut lab = Lab::new("Running").await;
    let (mut viewer, machine) = lab.attach().await;
    drop(machine);
    let Some(Ok(Message::Close(Some(CloseFrame { code, .. })))) = next(&mut viewer).await else {
        panic!("no close frame");
    };
    assert_eq!(u16::from(code), 1000);
}

#[tokio::test]
async fn the_next_viewer_takes_over_and_the_first_sees_an_abrupt_end() {
    let mut lab = Lab::new("Running").await;
    let (mut first, mut old) = lab.attach().await;
    first.send(binary(b"unread")).await.unwrap();
    let (mut second, mut machine) = lab.attach().await;
    assert!(ends_abruptly(next(&mut first).await.as_ref()));
    assert_eq!(old.read_to_end(&mut Vec::new()).await.unwrap(), 6);
    machine.write_all(b"yours").await.unwrap();
    assert_eq!(bytes(&mut second, 5).await, b"yours");
}

#[tokio::test]
async fn a_slow_viewer_makes_the_machine_wait_and_loses_nothing() {
    const OUTPUT: usize = 10 << 20;
    let mut lab = Lab::new("Running").await;
    let (mut viewer, mut machine) = lab.attach().await;
    let printing = tokio::spawn(async move {
        let output: Vec<u8> = (0..OUTPUT).map(|at| u8::try_from(at % 251).unwrap()).collect();
        machine.write_all(&output).await.unwrap();
        output
    });
    // One message a time: whatever the server may hold is far less than what is printed.
    let first = bytes(&mut viewer, 1).await;
    assert!(!printing.is_finished());
    let rest = bytes(&mut viewer, OUTPUT - first.len()).await;
    let output = printing.await.unwrap();
    assert!([first, rest].concat() == output);
}

#[tokio::test]
async fn a_hundred_viewers_who_leave_are_forgotten() {
    let mut lab = Lab::new("Running").await;
    for _ in 0..100 {
        let (viewer, mut machine) = lab.attach().await;
        // As virtctl does: no close frame.
        drop(viewer);
        let end = timeout(PATIENCE, machine.read(&mut [0; 1])).await.unwrap();
        assert_eq!(end.unwrap(), 0);
    }
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_as_kubevirt_refuses_it() {
    let lab = Lab::new("Scheduling").await;
    let console = format!("{BASE}/console");
    let (code, body) = lab.refusal(&console).await;
    assert_eq!((code, &body["message"]), (400, &json!("VMI is not running")));
    lab.api
        .merge("default", "alpine", &json!({"status": {"phase": "Failed"}}));
    let (code, body) = lab.refusal(&console).await;
    let failed = "Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io \"alpine\": VMI is in failed status";
    assert_eq!((code, &body["message"]), (409, &json!(failed)));
    let silent = json!({
        "spec": {"domain": {"devices": {"autoattachSerialConsole": false}}}, "status": {"phase": "Running"},
    });
    lab.api.merge("default", "alpine", &silent);
    let (code, body) = lab.refusal(&console).await;
    assert_eq!(
        (code, &body["message"]),
        (400, &json!("No serial consoles are present."))
    );
    let (code, body) = lab.refusal(&format!("{BASE}/vnc")).await;
    assert_eq!(
        (code, &body["message"]),
        (400, &json!("No graphics devices are present."))
    );
    let (code, body) = lab.refusal(&console.replace("alpine", "nobody")).await;
    assert_eq!((code, &body["reason"]), (404, &json!("NotFound")));
    assert_eq!(lab.refusal(&console.replace("alpine", "a%2Fb")).await.0, 404);
    assert_eq!(lab.refusal(&format!("{BASE}/sev")).await.0, 404);
}

#[tokio::test]
async fn who_only_looks_at_a_console_takes_it_from_nobody_and_types_nothing() {
    let mut lab = Lab::new("Running").await;
    let (mut typist, mut machine) = lab.attach().await;
    let looked = lab.try_open(&format!("{BASE}/console?readOnly=true")).await;
    let (mut looker, mut seen) = (looked.unwrap(), lab.consoles.recv().await.unwrap());
    looker.send(Message::binary(b"not typed".to_vec())).await.unwrap();
    typist.send(Message::binary(b"typed".to_vec())).await.unwrap();
    let mut typed = [0; 5];
    machine.read_exact(&mut typed).await.unwrap();
    assert_eq!(&typed, b"typed");
    seen.write_all(b"history").await.unwrap();
    let heard = timeout(PATIENCE, looker.next()).await.unwrap();
    assert_eq!(heard.unwrap().unwrap(), Message::binary(b"history".to_vec()));
    // As one who closes: all before that was heard, and none of it has arrived.
    looker.close(None).await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, seen.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, b"");
    let Err(Error::Http(refused)) = lab.try_open(&format!("{BASE}/console?readOnly=maybe")).await else {
        panic!("that is no answer");
    };
    assert_eq!(refused.status(), 400);
}
