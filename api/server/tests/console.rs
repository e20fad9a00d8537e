//! Consoles over a real gRPC connection: who gets in, what is seen, and what a slow viewer costs the others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rvm_proto::v1::console_request::{Close, Open, Request};
use rvm_proto::v1::console_response::{Attached, Response, TakenOver};
use rvm_proto::v1::machines_client::MachinesClient;
use rvm_proto::v1::{ConsoleRequest, ConsoleResponse};
use rvm_proto::{MAX_CONSOLE_CHUNK, reasons};
use rvm_server::fake::{FakeApi, FakeConsole, FakeMachines};
use rvm_server::{MachinesService, UnixDoor, Unreachable};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

/// Long enough for anything that is going to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Far more than all queues between a console and its viewer hold together.
const FLOOD: usize = 8 << 20;

struct Lab {
    api: FakeApi,
    machines: FakeMachines,
    consoles: mpsc::UnboundedReceiver<FakeConsole>,
    client: MachinesClient<Channel>,
    _folder: tempfile::TempDir,
}

/// A viewer's end of a console.
struct Viewer {
    typed: mpsc::Sender<ConsoleRequest>,
    seen: Streaming<ConsoleResponse>,
}

impl Lab {
    /// A server with one machine, `alpine`, that runs.
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("private").join("rvm.sock");
        let (api, (machines, consoles)) = (FakeApi::default(), FakeMachines::new());
        let handler = Arc::new(machines.clone());
        let service = MachinesService::new(api.client(), handler);
        let door = UnixDoor::bind(&socket).expect("a socket");
        tokio::spawn(door.serve(service, std::future::pending()));
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).expect("an address");
        let client = timeout(PATIENCE, async {
            while !socket.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            MachinesClient::new(endpoint.connect_lazy())
        });
        let client = client.await.expect("the server is there");
        let lab = Self {
            api,
            machines,
            consoles,
            client,
            _folder: folder,
        };
        lab.is_in("Running");
        lab
    }

    fn is_in(&self, phase: &str) {
        self.api.put(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": { "namespace": "default", "name": "alpine" },
            "spec": { "domain": { "devices": {} } }, "status": { "phase": phase, "nodeName": "n1" },
        }));
    }

    async fn try_view(&mut self, read_only: bool) -> Result<Viewer, Status> {
        let (typed, requests) = mpsc::channel(1);
        let open = Open {
            namespace: String::new(),
            name: "alpine".to_owned(),
            read_only,
        };
        let open = ConsoleRequest {
            request: Some(Request::Open(open)),
        };
        typed.send(open).await.expect("the stream takes it");
        let seen = self
            .client
            .console(ReceiverStream::new(requests))
            .await?
            .into_inner();
        Ok(Viewer { typed, seen })
    }

    /// A viewer that has been attached, and the machine's end of its console.
    async fn view(&mut self, read_only: bool) -> (Viewer, FakeConsole) {
        let mut viewer = self.try_view(read_only).await.expect("it is let in");
        let attached = Attached {
            node: "n1".to_owned(),
            accelerator: "tcg".to_owned(),
        };
        assert_eq!(viewer.next().await, Some(Response::Attached(attached)));
        (viewer, self.consoles.recv().await.expect("a console"))
    }

    async fn refusal(&mut self) -> (Code, String, String) {
        let error = self.try_view(false).await.err().expect("it is refused");
        let reason = error
            .get_details_error_info()
            .map(|info| info.reason)
            .unwrap_or_default();
        (error.code(), reason, error.message().to_owned())
    }
}

impl Viewer {
    async fn next(&mut self) -> Option<Response> {
        let response = timeout(PATIENCE, self.seen.message())
            .await
            .expect("something comes");
        response
            .expect("no error")
            .map(|response| response.response.expect("a response"))
    }

    /// Reads this many bytes of output.
    async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let output = self.next().await.and_then(output).expect("output was due");
            bytes.extend_from_slice(&output);
        }
        bytes
    }

    async fn send(&self, request: Request) {
        self.typed
            .send(ConsoleRequest {
                request: Some(request),
            })
            .await
            .expect("the stream takes it");
    }
}

fn output(response: Response) -> Option<Bytes> {
    match response {
        Response::Output(output) => Some(output),
        Response::Attached(_) | Response::TakenOver(_) => None,
    }
}

#[tokio::test]
async fn bytes_go_both_ways() {
    let mut lab = Lab::new().await;
    let (mut viewer, mut console) = lab.view(false).await;
    console.write_all(b"login: ").await.unwrap();
    assert_eq!(viewer.read(7).await, b"login: ");
    viewer.send(Request::Input(Bytes::from_static(b"root\r"))).await;
    let mut typed = [0; 5];
    console.read_exact(&mut typed).await.unwrap();
    assert_eq!(&typed, b"root\r");
}

#[tokio::test]
async fn a_viewer_that_only_looks_types_nothing() {
    let mut lab = Lab::new().await;
    let (mut viewer, mut console) = lab.view(true).await;
    viewer.send(Request::Input(Bytes::from_static(b"halt\r"))).await;
    console.write_all(b"x").await.unwrap();
    assert_eq!(viewer.read(1).await, b"x");
    viewer.send(Request::Close(Close {})).await;
    assert_eq!(viewer.next().await, None);
    let mut typed = Vec::new();
    timeout(PATIENCE, console.read_to_end(&mut typed))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(typed, b"");
}

#[tokio::test]
async fn the_next_who_types_takes_over_and_the_one_before_is_told_and_looks_on() {
    let mut lab = Lab::new().await;
    let (mut first, mut console) = lab.view(false).await;
    let (_looker, _) = lab.view(true).await;
    first.send(Request::Input(Bytes::from_static(b"mine"))).await;
    let mut typed = [0; 4];
    console.read_exact(&mut typed).await.unwrap();
    let (second, mut other) = lab.view(false).await;
    assert_eq!(first.next().await, Some(Response::TakenOver(TakenOver {})));
    second.send(Request::Input(Bytes::from_static(b"mine"))).await;
    other.read_exact(&mut typed).await.unwrap();
    first.send(Request::Input(Bytes::from_static(b"halt"))).await;
    console.write_all(b"seen").await.unwrap();
    assert_eq!(first.read(4).await, b"seen");
    first.send(Request::Close(Close {})).await;
    assert_eq!(first.next().await, None);
    let mut typed = Vec::new();
    console.read_to_end(&mut typed).await.unwrap();
    assert_eq!(typed, b"", "who has been taken over from types nothing");
}

#[tokio::test]
async fn the_machines_end_ends_the_stream_after_its_last_words() {
    let mut lab = Lab::new().await;
    let (mut viewer, mut console) = lab.view(false).await;
    console.write_all(b"Power down").await.unwrap();
    drop(console);
    assert_eq!(viewer.read(10).await, b"Power down");
    assert_eq!(viewer.next().await, None);
}

#[tokio::test]
async fn a_viewer_that_has_no_more_to_type_goes_on_reading() {
    let mut lab = Lab::new().await;
    let (Viewer { typed, seen }, mut console) = lab.view(false).await;
    drop(typed);
    let mut viewer = Viewer {
        typed: mpsc::channel(1).0,
        seen,
    };
    console.write_all(b"still here").await.unwrap();
    assert_eq!(viewer.read(10).await, b"still here");
}

#[tokio::test]
async fn a_viewer_that_closes_has_all_that_it_typed_delivered() {
    let mut lab = Lab::new().await;
    let (mut viewer, mut console) = lab.view(false).await;
    viewer
        .send(Request::Input(Bytes::from_static(b"poweroff\r")))
        .await;
    viewer.send(Request::Close(Close {})).await;
    assert_eq!(viewer.next().await, None);
    let mut typed = Vec::new();
    console.read_to_end(&mut typed).await.unwrap();
    assert_eq!(typed, b"poweroff\r");
}

#[tokio::test]
async fn a_viewer_that_goes_away_lets_its_console_go() {
    let mut lab = Lab::new().await;
    let (viewer, mut console) = lab.view(false).await;
    drop(viewer);
    let gone = timeout(PATIENCE, console.read(&mut [0; 1]))
        .await
        .expect("the server lets go");
    assert_eq!(gone.unwrap(), 0);
}

#[tokio::test]
async fn a_slow_viewer_makes_its_own_console_wait_and_no_other() {
    let mut lab = Lab::new().await;
    let (mut slow, mut slow_console) = lab.view(true).await;
    let (mut quick, mut quick_console) = lab.view(false).await;
    let flood = tokio::spawn(async move { slow_console.write_all(&vec![b'x'; FLOOD]).await });
    let words = vec![b'y'; FLOOD];
    let (written, read) = tokio::join!(quick_console.write_all(&words), quick.read(FLOOD));
    written.unwrap();
    assert_eq!(read.len(), FLOOD);
    assert!(
        !flood.is_finished(),
        "the slow viewer's console was read on, into memory"
    );
    assert_eq!(slow.read(FLOOD).await.len(), FLOOD);
    timeout(PATIENCE, flood).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_guest_that_does_not_read_makes_its_typist_wait() {
    let mut lab = Lab::new().await;
    let (viewer, mut console) = lab.view(false).await;
    let typed = viewer.typed.clone();
    let typist = tokio::spawn(async move {
        for _ in 0..FLOOD / MAX_CONSOLE_CHUNK {
            let input = Request::Input(vec![b'x'; MAX_CONSOLE_CHUNK].into());
            typed
                .send(ConsoleRequest { request: Some(input) })
                .await
                .expect("the stream takes it");
        }
    });
    console.write_all(b"busy").await.unwrap();
    let mut viewer = viewer;
    assert_eq!(viewer.read(4).await, b"busy");
    assert!(!typist.is_finished(), "the server took all input, into memory");
    let mut input = vec![0; FLOOD];
    timeout(PATIENCE, console.read_exact(&mut input))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_machine_that_does_not_run_yet_is_to_be_waited_for() {
    let mut lab = Lab::new().await;
    lab.is_in("Scheduled");
    let (code, reason, message) = lab.refusal().await;
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, reasons::NOT_RUNNING_YET)
    );
    assert!(message.ends_with("its phase is Scheduled"), "{message}");
}

#[tokio::test]
async fn a_machine_that_has_ended_says_how() {
    let mut lab = Lab::new().await;
    lab.is_in("Failed");
    let (code, reason, message) = lab.refusal().await;
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, reasons::ENDED)
    );
    assert!(message.ends_with("its phase is Failed"), "{message}");
}

#[tokio::test]
async fn a_machine_of_another_node_names_that_node() {
    let mut lab = Lab::new().await;
    lab.machines.refuse(Unreachable::AnotherNode {
        node: "n2".to_owned(),
    });
    let (code, reason, message) = lab.refusal().await;
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, reasons::ANOTHER_NODE)
    );
    assert!(message.contains("\"n2\""), "{message}");
}

#[tokio::test]
async fn a_process_that_does_not_answer_is_unavailable() {
    let mut lab = Lab::new().await;
    lab.machines.refuse(Unreachable::Unavailable(
        std::io::ErrorKind::ConnectionRefused.into(),
    ));
    assert_eq!(lab.refusal().await.0, Code::Unavailable);
}

#[tokio::test]
async fn a_machine_without_a_console_says_so() {
    let mut lab = Lab::new().await;
    let devices = json!({ "spec": { "domain": { "devices": { "autoattachSerialConsole": false } } } });
    lab.api.merge("default", "alpine", &devices);
    assert_eq!(lab.refusal().await.1, reasons::NO_CONSOLE);
}

#[tokio::test]
async fn the_first_request_must_open() {
    let mut lab = Lab::new().await;
    let input = ConsoleRequest {
        request: Some(Request::Input(Bytes::from_static(b"x"))),
    };
    let error = lab.client.console(tokio_stream::once(input)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn too_much_input_at_once_is_refused() {
    let mut lab = Lab::new().await;
    let (mut viewer, _console) = lab.view(false).await;
    viewer
        .send(Request::Input(vec![0; MAX_CONSOLE_CHUNK + 1].into()))
        .await;
    let error = timeout(PATIENCE, viewer.seen.message())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}
