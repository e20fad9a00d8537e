//! Ports over a real gRPC connection: what goes in, what comes out, and which end is done first.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rvm_proto::v1::machines_client::MachinesClient;
use rvm_proto::v1::port_forward_request::{Open, Protocol, Request};
use rvm_proto::v1::port_forward_response::{Connected, Ended, Response};
use rvm_proto::v1::{PortForwardRequest, PortForwardResponse};
use rvm_proto::{MAX_PORT_CHUNK, reasons};
use rvm_server::fake::{FakeApi, FakeMachines};
use rvm_server::{MachinesService, UnixDoor};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

/// Long enough for anything that is going to happen.
const PATIENCE: Duration = Duration::from_secs(60);

struct Lab {
    client: MachinesClient<Channel>,
    api: FakeApi,
    _folder: tempfile::TempDir,
}

struct Caller {
    into: mpsc::Sender<PortForwardRequest>,
    out: Streaming<PortForwardResponse>,
}

impl Lab {
    async fn new(phase: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("private").join("rvm.sock");
        let (api, (machines, _)) = (FakeApi::default(), FakeMachines::new());
        let handler = Arc::new(machines);
        let service = MachinesService::new(api.client(), handler);
        let door = UnixDoor::bind(&socket).expect("a socket");
        tokio::spawn(door.serve(service, std::future::pending()));
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).expect("an address");
        let lab = Self {
            client: MachinesClient::new(endpoint.connect().await.expect("the server is there")),
            api,
            _folder: folder,
        };
        let vmi = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "alpine", "namespace": "default"},
            "spec": {"domain": {"devices": {}}}, "status": {"phase": phase, "nodeName": "here"},
        });
        lab.api.put(vmi);
        lab
    }

    async fn say(&self, first: Request) -> Result<Caller, Status> {
        let (into, requests) = mpsc::channel(1);
        into.send(PortForwardRequest { request: Some(first) })
            .await
            .expect("the stream is open");
        let called = self
            .client
            .clone()
            .port_forward(ReceiverStream::new(requests))
            .await?;
        Ok(Caller {
            into,
            out: called.into_inner(),
        })
    }

    async fn open(&self, protocol: Protocol, port: u32) -> Result<Caller, Status> {
        let mut caller = self.say(Request::Open(open(protocol, port))).await?;
        match caller.next().await? {
            Some(Response::Connected(Connected {})) => Ok(caller),
            other => Err(Status::internal(format!("{other:?}"))),
        }
    }
}

impl Caller {
    async fn next(&mut self) -> Result<Option<Response>, Status> {
        let message = timeout(PATIENCE, self.out.message())
            .await
            .expect("something comes")?;
        Ok(message.and_then(|message| message.response))
    }

    async fn send(&self, data: &[u8]) {
        let request = Some(Request::Data(Bytes::copy_from_slice(data)));
        let sent = self.into.send(PortForwardRequest { request }).await;
        sent.expect("the stream is open");
    }
}

fn open(protocol: Protocol, port: u32) -> Open {
    Open {
        namespace: String::new(),
        name: "alpine".to_owned(),
        protocol: protocol.into(),
        port,
    }
}

fn received(data: &[u8]) -> Option<Response> {
    Some(Response::Data(Bytes::copy_from_slice(data)))
}

#[tokio::test]
async fn a_caller_that_is_done_still_hears_the_answer() {
    let lab = Lab::new("Running").await;
    let guest = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = guest.local_addr().expect("it has one").port();
    let caller = lab.open(Protocol::Tcp, port.into()).await.expect("it is open");
    let (mut end, _) = guest.accept().await.expect("a connection");
    caller.send(b"all of it").await;
    let Caller { into, out } = caller;
    drop(into);
    let mut all = Vec::new();
    end.read_to_end(&mut all)
        .await
        .expect("the caller's end is heard");
    assert_eq!(all, b"all of it");
    end.write_all(b"late").await.expect("the caller still listens");
    drop(end);
    let (into, _) = mpsc::channel(1);
    let mut caller = Caller { into, out };
    assert_eq!(caller.next().await.expect("data"), received(b"late"));
    assert_eq!(
        caller.next().await.expect("the end"),
        Some(Response::Ended(Ended {}))
    );
    assert_eq!(caller.next().await.expect("the end"), None);
}

#[tokio::test]
async fn a_guest_that_is_done_still_hears_the_caller() {
    let lab = Lab::new("Running").await;
    let guest = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = guest.local_addr().expect("it has one").port();
    let mut caller = lab
        .open(Protocol::Unspecified, port.into())
        .await
        .expect("it is open");
    let (mut end, _) = guest.accept().await.expect("a connection");
    end.shutdown().await.expect("half of it closes");
    assert_eq!(
        caller.next().await.expect("the end"),
        Some(Response::Ended(Ended {}))
    );
    caller.send(b"still here").await;
    let mut heard = [0; 10];
    end.read_exact(&mut heard).await.expect("it comes");
    assert_eq!(&heard, b"still here");
    drop(caller.into);
    assert!(
        timeout(PATIENCE, caller.out.message())
            .await
            .expect("an end")
            .expect("a good one")
            .is_none()
    );
}

#[tokio::test]
async fn datagrams_keep_their_edges() {
    let lab = Lab::new("Running").await;
    let guest = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let port = guest.local_addr().expect("it has one").port();
    let mut caller = lab.open(Protocol::Udp, port.into()).await.expect("it is open");
    caller.send(b"one").await;
    caller.send(b"two").await;
    let mut datagram = [0; 100];
    let (length, from) = guest.recv_from(&mut datagram).await.expect("a datagram");
    assert_eq!(&datagram[..length], b"one");
    let (length, _) = guest.recv_from(&mut datagram).await.expect("a datagram");
    assert_eq!(&datagram[..length], b"two");
    guest.send_to(b"answer", from).await.expect("it goes");
    assert_eq!(caller.next().await.expect("an answer"), received(b"answer"));
}

#[tokio::test]
async fn what_cannot_be_reached_is_refused_with_its_reason() {
    let lab = Lab::new("Running").await;
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = free.local_addr().expect("it has one").port();
    drop(free);
    let refused = lab
        .open(Protocol::Tcp, port.into())
        .await
        .err()
        .expect("a refusal");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(
        refused
            .message()
            .contains(&format!("port {port} of \"alpine\" cannot be reached")),
        "{refused}"
    );
    let none = lab.open(Protocol::Tcp, 65536).await.err().expect("a refusal");
    assert_eq!(none.code(), Code::InvalidArgument);
    let early = Lab::new("Scheduled").await;
    let refused = early.open(Protocol::Tcp, 22).await.err().expect("a refusal");
    let info = refused.get_details_error_info().expect("details");
    assert_eq!(info.reason, reasons::NOT_RUNNING_YET);
}

#[tokio::test]
async fn who_breaks_the_rules_is_told_so() {
    let lab = Lab::new("Running").await;
    let guest = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let port = guest.local_addr().expect("it has one").port();
    let unopened = lab
        .say(Request::Data(Bytes::new()))
        .await
        .err()
        .expect("a refusal");
    assert_eq!(unopened.code(), Code::InvalidArgument);
    let mut caller = lab.open(Protocol::Udp, port.into()).await.expect("it is open");
    caller.send(&vec![0; MAX_PORT_CHUNK + 1]).await;
    let refused = caller.next().await.expect_err("it is too long");
    assert_eq!(refused.code(), Code::InvalidArgument);
}
