//! Consoles and ports as KubeVirt's clients ask for them: real websockets, to the byte.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use rvm_server::agent::Command;
use rvm_server::fake::{FakeApi, FakeConsole, FakeMachines};
use rvm_server::{Act, Subresources};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Long enough for anything that is going to happen.
const PATIENCE: Duration = Duration::from_secs(60);
const BASE: &str = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/alpine";

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Lab {
    api: FakeApi,
    address: std::net::SocketAddr,
    machines: FakeMachines,
    consoles: mpsc::UnboundedReceiver<FakeConsole>,
}

impl Lab {
    async fn new(phase: &str) -> Self {
        let (api, (machines, consoles)) = (FakeApi::default(), FakeMachines::new());
        let handler = Arc::new(machines.clone());
        let below = Subresources::new(api.client(), handler);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, below.router()).await });
        api.put(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "alpine", "namespace": "default"},
            "spec": {"domain": {"devices": {}}}, "status": {"phase": phase, "nodeName": "here"},
        }));
        Self {
            api,
            address,
            machines,
            consoles,
        }
    }

    /// The code and the message, if there is one, of a PUT.
    async fn act(&self, action: &str, body: &str) -> (u16, Value) {
        let (code, body) = self.call("PUT", &format!("{BASE}/{action}"), body).await;
        (code, body["message"].clone())
    }

    /// The code and what is said.
    async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, serde_json::from_str(body).unwrap_or_default())
    }

    fn is_paused(&self) {
        self.has(&["Paused"]);
    }

    /// From now on these are the instance's conditions.
    fn has(&self, conditions: &[&str]) {
        let all = conditions
            .iter()
            .map(|kind| json!({"type": kind, "status": "True"}));
        let status = json!({"status": {"conditions": all.collect::<Value>()}});
        self.api.merge("default", "alpine", &status);
    }

    async fn try_open(&self, path: &str) -> Result<Socket, Error> {
        let mut request = format!("ws://{}{path}", self.address)
            .into_client_request()
            .unwrap();
        let protocol = "plain.kubevirt.io".parse().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let (socket, response) = connect_async(request).await?;
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "plain.kubevirt.io");
        Ok(socket)
    }

    /// A viewer, and the machine's end of its console.
    async fn attach(&mut self) -> (Socket, FakeConsole) {
        let socket = self.try_open(&format!("{BASE}/console")).await.unwrap();
        let console = timeout(PATIENCE, self.consoles.recv()).await.unwrap().unwrap();
        (socket, console)
    }

    /// The code and the body of what cannot be had.
    async fn refusal(&self, path: &str) -> (u16, Value) {
        let Err(Error::Http(response)) = self.try_open(path).await else {
            panic!("{path} is no refusal");
        };
        assert_eq!(response.headers()["content-type"], "application/json");
        let body: Value = serde_json::from_slice(response.body().as_deref().unwrap()).unwrap();
        assert_eq!(body["code"], response.status().as_u16());
        assert_eq!(
            (&body["kind"], &body["status"]),
            (&json!("Status"), &json!("Failure"))
        );
        (response.status().as_u16(), body)
    }
}

/// How a conflict is told.
fn why(why: &str) -> Value {
    json!(format!(
        "Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io \"alpine\": {why}"
    ))
}

async fn next(socket: &mut Socket) -> Option<Result<Message, Error>> {
    timeout(PATIENCE, socket.next()).await.unwrap()
}

/// Binary messages until there are this many bytes.
async fn bytes(socket: &mut Socket, count: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    while heard.len() < count {
        match next(socket).await.unwrap().unwrap() {
            Message::Binary(bytes) => heard.extend_from_slice(&bytes),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    heard
}

fn binary(bytes: &[u8]) -> Message {
    Message::binary(bytes.to_vec())
}

fn ends_abruptly(end: Option<&Result<Message, Error>>) -> bool {
    matches!(
        end,
        Some(Err(
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_)
        )) | None
    )
}

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
    let Some(Ok(Message::Close(Some(CloseFrame { code, .. })))) = next(&mut caller).await else {
        panic!("no close frame");
    };
    assert_eq!(u16::from(code), 1000);

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
async fn a_machine_is_paused_once_and_goes_on_once() {
    let lab = Lab::new("Running").await;
    assert_eq!(lab.act("unpause", "{}").await, (409, why("VMI is not paused")));
    assert_eq!(
        lab.act("pause", r#"{"dryRun":["All"]}"#).await,
        (200, Value::Null)
    );
    assert_eq!(lab.machines.acts(), []);
    assert_eq!(lab.act("pause", "{}").await, (200, Value::Null));
    lab.is_paused();
    assert_eq!(lab.act("pause", "").await, (409, why("VMI is already paused")));
    assert_eq!(lab.act("unpause", "").await, (200, Value::Null));
    assert_eq!(lab.act("reset", "").await, (200, Value::Null));
    let done = [Act::Pause, Act::Resume, Act::Reset].map(|act| ("alpine".to_owned(), act));
    assert_eq!(lab.machines.acts(), done);
    lab.api
        .merge("default", "alpine", &json!({"status": {"phase": "Scheduled"}}));
    assert_eq!(lab.act("reset", "").await, (409, why("VMI is not running")));
}

#[tokio::test]
async fn a_guest_is_asked_by_its_agent_alone() {
    let lab = Lab::new("Running").await;
    let get = |what: &str| {
        let path = format!("{BASE}/{what}");
        let lab = &lab;
        async move { lab.call("GET", &path, "").await }
    };
    let (code, body) = get("guestosinfo").await;
    let no_agent = why("VMI does not have guest agent connected");
    assert_eq!((code, &body["message"]), (409, &no_agent));
    assert_eq!(lab.machines.told(), []);

    lab.has(&["AgentConnected"]);
    lab.machines
        .answer(Command::HostName, json!({"host-name": "alpine"}));
    lab.machines
        .answer(Command::Users, json!([{"user": "root", "login-time": 2.5}]));
    let user = json!({"userName": "root", "loginTime": 2.5});
    let info = json!({"hostname": "alpine", "os": {}, "userList": [user], "fsInfo": {"disks": []}});
    assert_eq!(get("guestosinfo").await, (200, info));
    let list = json!({"metadata": {}, "items": [user]});
    assert_eq!(get("userlist").await, (200, list));
    let none = json!({"metadata": {}, "items": []});
    assert_eq!(
        get("filesystemlist").await,
        (200, none),
        "what an agent does not know is nothing"
    );

    lab.api
        .merge("default", "alpine", &json!({"status": {"phase": "Succeeded"}}));
    assert_eq!(get("userlist").await.1["message"], why("VMI is not running"));
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

#[tokio::test]
async fn what_a_machine_takes_is_told_while_it_runs() {
    let lab = Lab::new("Running").await;
    let path = format!("{BASE}/usage");
    let taken = json!({
        "atMicroseconds": 1_000_000, "cpuMicroseconds": 250_000, "memoryBytes": 96 << 20,
        "cpus": 2, "guestMemoryBytes": 128 << 20,
    });
    assert_eq!(lab.call("GET", &path, "").await, (200, taken));
    lab.api
        .merge("default", "alpine", &json!({"status": {"phase": "Scheduling"}}));
    let (code, said) = lab.call("GET", &path, "").await;
    assert_eq!((code, &said["message"]), (400, &json!("VMI is not running")));
}

#[tokio::test]
async fn a_soft_reboot_is_the_agents() {
    let lab = Lab::new("Running").await;
    let neither = why("VMI neither have the agent connected nor the ACPI feature enabled");
    assert_eq!(lab.act("softreboot", "").await, (409, neither));
    lab.has(&["AgentConnected", "Paused"]);
    assert_eq!(lab.act("softreboot", "").await, (409, why("VMI is paused")));
    lab.has(&["AgentConnected"]);
    let (code, message) = lab.act("softreboot", "").await;
    assert_eq!(code, 500);
    assert!(
        message
            .as_str()
            .unwrap()
            .contains("guest-shutdown has not been found"),
        "{message}"
    );
    lab.machines.answer(Command::Reboot, Value::Null);
    assert_eq!(lab.act("softreboot", "").await, (200, Value::Null));
    assert_eq!(lab.machines.told(), [Command::Reboot; 2]);
    lab.api
        .merge("default", "alpine", &json!({"status": {"phase": "Scheduled"}}));
    assert_eq!(lab.act("softreboot", "").await, (409, why("VM is not running")));
}

#[tokio::test]
async fn a_guest_is_frozen_until_it_is_thawed_or_for_the_time_that_is_said() {
    let lab = Lab::new("Running").await;
    lab.machines.answer(Command::Freeze, json!(1));
    lab.machines.answer(Command::Thaw, json!(1));
    assert_eq!(lab.act("freeze", r#"{"unfreezeTimeout":"soon"}"#).await.0, 400);
    assert_eq!(
        lab.act("freeze", r#"{"unfreezeTimeout":"1h0m0s"}"#).await,
        (200, Value::Null)
    );
    assert_eq!(lab.act("unfreeze", "").await, (200, Value::Null));
    assert_eq!(lab.machines.told(), [Command::Freeze, Command::Thaw]);
    assert_eq!(
        lab.act("freeze", r#"{"unfreezeTimeout":"1ms"}"#).await,
        (200, Value::Null)
    );
    // Whoever has the machine thaws it again.
    let times = [Duration::from_secs(3600), Duration::from_millis(1)];
    assert_eq!(lab.machines.frozen(), times);
    assert_eq!(lab.act("freeze", "").await, (200, Value::Null));
    assert_eq!(lab.machines.frozen(), times);
}

#[tokio::test]
async fn what_a_machine_cannot_have_is_refused_by_name() {
    let lab = Lab::new("Running").await;
    let (group, _) = BASE.split_once("/namespaces/").unwrap();
    assert_eq!(lab.call("GET", &format!("{group}/guestfs"), "").await.0, 404);
}

/// An instance that can be checked whole.
fn complete() -> Value {
    json!({"spec": {
        "architecture": "riscv64",
        "domain": {"devices": {"disks": [{"name": "root", "disk": {}}]}, "memory": {"guest": "128Mi"}},
        "volumes": [{"name": "root", "containerDisk": {"image": "a"}}],
    }})
}

#[tokio::test]
async fn a_volume_comes_into_an_instance_that_runs_and_goes() {
    let lab = Lab::new("Running").await;
    lab.api.merge("default", "alpine", &complete());
    let spec = || lab.api.object("default", "alpine").unwrap()["spec"].clone();
    let before = spec();
    let add = |name: &str, bus: &str, dry_run: Value| {
        let body = json!({
            "name": name, "disk": {"serial": "s1", "disk": {"bus": bus}},
            "volumeSource": {"persistentVolumeClaim": {"claimName": "claim"}}, "dryRun": dry_run,
        });
        body.to_string()
    };
    // As virtctl asks where its user says nothing; that bus no guest is told of.
    let data = add("data", "virtio", Value::Array(vec![]));
    let rehearsed = lab.act("addvolume", &add("data", "scsi", json!(["Some"]))).await;
    assert_eq!(rehearsed, (400, json!("dryRun is All, or not there")));
    let (code, message) = lab.act("addvolume", &add("data", "sata", json!([]))).await;
    assert_eq!(code, 422);
    assert!(message.as_str().unwrap().contains("is not scsi"), "{message}");
    assert_eq!(spec(), before);
    assert_eq!(lab.act("addvolume", &data).await, (202, Value::Null));
    let claim = json!({"claimName": "claim", "hotpluggable": true});
    assert_eq!(
        spec()["volumes"][1],
        json!({"name": "data", "persistentVolumeClaim": claim})
    );
    let disk = json!({"name": "data", "serial": "s1", "disk": {"bus": "scsi"}});
    assert_eq!(spec()["domain"]["devices"]["disks"][1], disk);

    let cannot = r#"Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "alpine": Unable to"#;
    let again = format!("{cannot} add volume [data] because volume with that name already exists");
    assert_eq!(lab.act("addvolume", &data).await, (409, json!(again)));
    let root = format!("{cannot} remove volume [root] because it is not hotpluggable");
    assert_eq!(
        lab.act("removevolume", r#"{"name":"root"}"#).await,
        (409, json!(root))
    );
    assert_eq!(lab.act("removevolume", r#"{"name":"data"}"#).await.0, 202);
    assert_eq!(spec(), before);
    let none = format!("{cannot} remove volume [data] because it does not exist");
    assert_eq!(
        lab.act("removevolume", r#"{"name":"data"}"#).await,
        (409, json!(none))
    );
}

#[tokio::test]
async fn only_an_instance_that_runs_takes_volumes() {
    let lab = Lab::new("Scheduled").await;
    let cannot =
        r#"Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "alpine": VMI is not running"#;
    assert_eq!(
        lab.act("removevolume", r#"{"name":"a"}"#).await,
        (409, json!(cannot))
    );
    let empty = "AddVolumeOptions requires name to be set";
    assert_eq!(lab.act("addvolume", "").await, (400, json!(empty)));
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

#[tokio::test]
async fn a_spec_is_expanded_before_it_is_applied() {
    let lab = Lab::new("Running").await;
    let (namespace, _) = BASE.split_once("/virtualmachineinstances").unwrap();
    let path = format!("{namespace}/expand-vm-spec");
    let vm = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "a", "namespace": "default"},
        "spec": {"runStrategy": "Always", "template": {"spec": {"domain": {"devices": {}}}}},
    });
    assert_eq!(lab.call("PUT", &path, &vm.to_string()).await, (200, vm));
    let (code, body) = lab.call("PUT", &path, "").await;
    assert_eq!((code, &body["message"]), (400, &json!("empty request body")));
}

#[tokio::test]
async fn every_resource_that_is_listed_is_there() {
    let lab = Lab::new("Running").await;
    let (group, _) = BASE.split_once("/namespaces/").unwrap();
    let (_, list) = lab.call("GET", group, "").await;
    let resources = list["resources"].as_array().unwrap();
    assert!(resources.len() > 20);
    for resource in resources {
        let name = resource["name"].as_str().unwrap().replacen('/', "/nobody/", 1);
        // No verb of ours: what is there allows another one, what is not is not there.
        let (code, _) = lab
            .call("BREW", &format!("{group}/namespaces/default/{name}"), "")
            .await;
        let port = name.ends_with("portforward");
        assert_eq!(code, if port { 404 } else { 405 }, "{name}");
    }
}
