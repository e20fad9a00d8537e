//! Ports of guests.

use futures::SinkExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::lab::{BASE, Lab, PATIENCE, binary, bytes, next};

#[tokio::test]
async fn a_port_is_a_connection_until_either_end_is_done() {
    let lab = Lab::new("Running").await;
    let guest = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = format!("{BASE}/portforward/{}", guest.local_addr().unwrap().port());
    let (caller, accepted) = tokio::join!(lab.try_open(&path), guest.accept());
    let (mut caller, mut stream) = (caller.unwrap(), accepted.unwrap().0);
    caller.send(binary(b"question")).await.unwrap();
    let mut question = [0; 8];
    stream.read_exact(&mut question).await.unwrap();
    assert_eq!(&question, b"question");
    stream.write_all(b"answer").await.unwrap();
    assert_eq!(bytes(&mut caller, 6).await, b"answer");
    drop(stream);
    let end = next(&mut caller).await;
    let Some(Ok(Message::Close(Some(CloseFrame { code, .. })))) = &end else {
        panic!("no close frame: {end:?}");
    };
    assert_eq!(u16::from(*code), 1000);

    let (caller, accepted) = tokio::join!(lab.try_open(&path), guest.accept());
    drop(caller);
    let end = timeout(PATIENCE, accepted.unwrap().0.read(&mut [0; 1]))
        .await
        .unwrap();
    assert_eq!(end.unwrap(), 0);
}

#[tokio::test]
async fn a_datagram_is_a_message() {
    let lab = Lab::new("Running").await;
    let guest = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let path = format!("{BASE}/portforward/{}/udp", guest.local_addr().unwrap().port());
    let mut caller = lab.try_open(&path).await.unwrap();
    caller.send(binary(b"one")).await.unwrap();
    caller.send(binary(b"three")).await.unwrap();
    let mut heard = [0; 16];
    let (count, from) = timeout(PATIENCE, guest.recv_from(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&heard[..count], b"one");
    assert_eq!(
        timeout(PATIENCE, guest.recv(&mut heard)).await.unwrap().unwrap(),
        5
    );
    guest.send_to(b"back", from).await.unwrap();
    assert_eq!(bytes(&mut caller, 4).await, b"back");
}

#[tokio::test]
async fn a_port_that_is_none_or_that_nobody_listens_on_is_refused() {
    let lab = Lab::new("Running").await;
    assert_eq!(lab.refusal(&format!("{BASE}/portforward/0")).await.0, 400);
    assert_eq!(lab.refusal(&format!("{BASE}/portforward/70000")).await.0, 400);
    assert_eq!(lab.refusal(&format!("{BASE}/portforward/22/sctp")).await.0, 400);
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (code, body) = lab.refusal(&format!("{BASE}/portforward/{free}")).await;
    assert_eq!(code, 500);
    let message = body["message"].as_str().unwrap();
    assert!(
        message.starts_with("Internal error occurred: dialing VM: "),
        "{message}"
    );
}

#[tokio::test]
async fn a_port_of_a_virtual_machine_that_is_not_there_is_not_forwarded_to_an_instance_of_its_name() {
    let lab = Lab::new("Running").await;
    let path = BASE.replace("virtualmachineinstances", "virtualmachines") + "/portforward/22/tcp";
    let refused = lab.try_open(&path).await.unwrap_err();
    let Error::Http(answer) = refused else {
        panic!("{refused}")
    };
    let body: Value = serde_json::from_slice(answer.body().as_deref().unwrap()).unwrap();
    let missing = r#"virtualmachine.kubevirt.io "alpine" not found"#;
    assert_eq!(
        (answer.status().as_u16(), &body["message"]),
        (404, &json!(missing))
    );
}
