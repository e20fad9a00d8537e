//! What rvm-api does between a cluster's users and a node's handler, over real TLS: a websocket here, rvm.v1 there, and a second rvm-api
//! beside. The handler's machines are in the test's hands.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rvm_server::agent::Command;
use rvm_server::certificates::{API, HANDLER, Identity, Pair};
use rvm_server::fake::{FakeApi, FakeConsole, FakeMachines};
use rvm_server::{
    Agents, Consoles, Fleet, MachinesService, Role, Subresources, TlsDoor, TlsFiles, serve_tls,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Long enough for anything that is going to happen.
const PATIENCE: Duration = Duration::from_secs(60);
const CONSOLE: &str =
    "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/alpine/console";

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A node with one machine, `alpine`, its handler, and two rvm-apis.
struct Lab {
    api: FakeApi,
    machines: FakeMachines,
    consoles: mpsc::UnboundedReceiver<FakeConsole>,
    fleet: Fleet,
    /// Where the handler is.
    handler: String,
    /// Where each rvm-api takes websockets.
    doors: [SocketAddr; 2],
    _identity: watch::Sender<Arc<Identity>>,
    _folder: tempfile::TempDir,
}

fn issue(ca: &CertifiedIssuer<'static, KeyPair>, name: &str) -> Pair {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    Pair {
        certificate: params.signed_by(&key, ca).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

fn node_at(address: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "n1", "annotations": {rvm_types::names::annotations::HANDLER_ADDRESS: address}},
    })
}

impl Lab {
    async fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let pair = issue(&ca, HANDLER);
        let files = TlsFiles {
            certificate: file("handler.crt", &pair.certificate),
            key: file("handler.key", &pair.key),
            client_ca: file("ca.crt", &ca.pem()),
            clients: vec![API.to_owned()],
        };
        let (api, (machines, consoles)) = (FakeApi::default(), FakeMachines::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = MachinesService::new(api.client(), Arc::new(machines.clone()));
        let door = TlsDoor::new(listener, &files).unwrap();
        tokio::spawn(serve_tls(door, service, std::future::pending()));
        api.put_node(node_at(&address));
        api.put(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "alpine", "namespace": "default"},
            "spec": {"domain": {"devices": {}}}, "status": {"phase": "Running", "nodeName": "n1"},
        }));
        let identity = watch::Sender::new(Arc::new(Identity {
            pair: issue(&ca, API),
            bundle: ca.pem(),
        }));
        let fleet = Fleet::new(api.client(), identity.subscribe());
        let mut doors = Vec::new();
        for _ in 0..2 {
            let below = Subresources::new(api.client(), Arc::new(fleet.clone()));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            doors.push(listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, below.router()).await });
        }
        Self {
            api,
            machines,
            consoles,
            fleet,
            handler: address,
            doors: doors.try_into().unwrap(),
            _identity: identity,
            _folder: folder,
        }
    }

    /// From now on the handler is reached by a way that is gone when this task is ended.
    async fn way(&self) -> JoinHandle<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.api
            .put_node(node_at(&listener.local_addr().unwrap().to_string()));
        let handler = self.handler.clone();
        tokio::spawn(async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(handler).await.unwrap();
            // The test cuts it.
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        })
    }

    fn vmi(&self) -> rvm_types::VirtualMachineInstance {
        let object = self.api.object("default", "alpine").unwrap();
        serde_json::from_value(object).unwrap()
    }

    async fn try_open(&self, door: usize) -> Result<Socket, Error> {
        let opened = connect_async(format!("ws://{}{CONSOLE}", self.doors[door])).await;
        opened.map(|(socket, _)| socket)
    }

    /// A viewer, and the machine's end of its console.
    async fn attach(&mut self, door: usize) -> (Socket, FakeConsole) {
        let socket = self.try_open(door).await.unwrap();
        let console = timeout(PATIENCE, self.consoles.recv()).await.unwrap().unwrap();
        (socket, console)
    }
}

async fn next(socket: &mut Socket) -> Option<Result<Message, Error>> {
    timeout(PATIENCE, socket.next()).await.unwrap()
}

async fn bytes(socket: &mut Socket, count: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    while heard.len() < count {
        match next(socket).await.unwrap().unwrap() {
            Message::Binary(bytes) => heard.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    heard
}

/// What this process has open.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test]
async fn a_slow_viewer_makes_a_machine_of_another_node_wait_and_loses_nothing() {
    const OUTPUT: usize = 10 << 20;
    let mut lab = Lab::new().await;
    let (mut viewer, mut machine) = lab.attach(0).await;
    let printing = tokio::spawn(async move {
        let output: Vec<u8> = (0..OUTPUT).map(|at| u8::try_from(at % 251).unwrap()).collect();
        machine.write_all(&output).await.unwrap();
        output
    });
    let first = bytes(&mut viewer, 1).await;
    // Whatever all on the way may hold is less than what is printed, so the machine waits for its viewer.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(!printing.is_finished(), "somebody on the way took all of it");
    let rest = bytes(&mut viewer, OUTPUT - first.len()).await;
    assert!([first, rest].concat() == printing.await.unwrap());
}

#[tokio::test]
async fn a_hundred_viewers_who_leave_cost_neither_descriptors_nor_tasks() {
    let mut lab = Lab::new().await;
    let mut before = None;
    for round in 0..100 {
        let (viewer, mut machine) = lab.attach(round % 2).await;
        machine.write_all(b"login: ").await.unwrap();
        // As virtctl does: no close frame.
        drop(viewer);
        let end = timeout(PATIENCE, machine.read(&mut [0; 1])).await.unwrap();
        assert_eq!(end.unwrap(), 0);
        // The first few show what a viewer costs while it leaves.
        if round == 9 {
            before = Some((descriptors(), tasks()));
        }
    }
    let (open, alive) = before.unwrap();
    let left = async {
        while descriptors() > open || tasks() > alive {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let settled = timeout(PATIENCE, left).await;
    let now = (descriptors(), tasks());
    assert!(settled.is_ok(), "{now:?} after {:?}", (open, alive));
}

#[tokio::test]
async fn the_next_viewer_takes_over_also_from_another_rvm_api() {
    let mut lab = Lab::new().await;
    let (mut first, mut old) = lab.attach(0).await;
    first.send(Message::binary(b"mine".to_vec())).await.unwrap();
    let mut typed = [0; 4];
    old.read_exact(&mut typed).await.unwrap();
    let (mut second, mut machine) = lab.attach(1).await;
    // No close frame: that would be the console's end.
    let end = next(&mut first).await;
    assert!(matches!(end, Some(Err(_)) | None), "{end:?}");
    machine.write_all(b"yours").await.unwrap();
    assert_eq!(bytes(&mut second, 5).await, b"yours");
    drop(machine);
    assert!(matches!(
        next(&mut second).await,
        Some(Ok(Message::Close(Some(_))))
    ));
}

#[tokio::test]
async fn a_console_whose_way_is_lost_ends_without_a_close_frame() {
    let mut lab = Lab::new().await;
    let way = lab.way().await;
    let (mut viewer, mut machine) = lab.attach(0).await;
    machine.write_all(b"login: ").await.unwrap();
    assert_eq!(bytes(&mut viewer, 7).await, b"login: ");
    way.abort();
    // The machine has not ended, and nobody says that it has.
    let end = next(&mut viewer).await;
    assert!(matches!(end, Some(Err(_)) | None), "{end:?}");
}

#[tokio::test]
async fn who_only_looks_takes_nothing_from_who_types() {
    let mut lab = Lab::new().await;
    let (mut typist, mut machine) = lab.attach(0).await;
    let looker = lab.fleet.attach(&lab.vmi(), Role::Looks).await.unwrap();
    let _seen = lab.consoles.recv().await.unwrap();
    typist
        .send(Message::binary(b"still mine".to_vec()))
        .await
        .unwrap();
    let mut typed = [0; 10];
    machine.read_exact(&mut typed).await.unwrap();
    machine.write_all(b"yes").await.unwrap();
    assert_eq!(bytes(&mut typist, 3).await, b"yes");
    drop(looker);
}

#[tokio::test]
async fn a_machine_that_starts_is_asked_for_again_until_it_runs() {
    let mut lab = Lab::new().await;
    lab.api
        .merge("default", "alpine", &json!({"status": {"phase": "Scheduled"}}));
    let Err(Error::Http(early)) = lab.try_open(0).await else {
        panic!("it does not run");
    };
    let said = String::from_utf8_lossy(early.body().as_deref().unwrap()).into_owned();
    assert_eq!(early.status(), 400);
    assert!(said.contains("\"VMI is not running\""), "{said}");
    lab.api
        .merge("default", "alpine", &json!({"status": {"phase": "Running"}}));
    let (mut viewer, mut machine) = lab.attach(0).await;
    machine.write_all(b"here").await.unwrap();
    assert_eq!(bytes(&mut viewer, 4).await, b"here");
}

#[tokio::test]
async fn a_guest_is_frozen_for_a_time_by_the_handler_that_has_it() {
    let lab = Lab::new().await;
    lab.machines.answer(Command::Freeze, json!(1));
    lab.machines.answer(Command::Users, json!([]));
    let time = Duration::from_millis(1500);
    lab.fleet.freeze_for(&lab.vmi(), time).await.unwrap();
    assert_eq!(lab.machines.frozen(), [time]);
    let users = lab.fleet.tell(&lab.vmi(), Command::Users).await.unwrap();
    assert_eq!(users, json!([]));
    let unknown = lab.fleet.tell(&lab.vmi(), Command::TimeZone).await;
    assert!(matches!(unknown, Err(rvm_server::AgentError::Refused(_))));
}
