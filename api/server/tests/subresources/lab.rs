//! What all of them need: the API, a machine behind it, and a client.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rvm_server::Subresources;
use rvm_server::fake::{FakeApi, FakeConsole, FakeMachines};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Long enough for anything that is going to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The instance's.
pub const BASE: &str = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/alpine";

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The API with one instance in it, and the machine's end of all that is asked.
pub struct Lab {
    pub api: FakeApi,
    address: std::net::SocketAddr,
    pub machines: FakeMachines,
    pub consoles: mpsc::UnboundedReceiver<FakeConsole>,
}

impl Lab {
    pub async fn new(phase: &str) -> Self {
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
    pub async fn act(&self, action: &str, body: &str) -> (u16, Value) {
        let (code, body) = self.call("PUT", &format!("{BASE}/{action}"), body).await;
        (code, body["message"].clone())
    }

    /// The code and what is said.
    pub async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
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

    pub fn is_paused(&self) {
        self.has(&["Paused"]);
    }

    /// From now on these are the instance's conditions.
    pub fn has(&self, conditions: &[&str]) {
        let all = conditions
            .iter()
            .map(|kind| json!({"type": kind, "status": "True"}));
        let status = json!({"status": {"conditions": all.collect::<Value>()}});
        self.api.merge("default", "alpine", &status);
    }

    pub async fn try_open(&self, path: &str) -> Result<Socket, Error> {
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
    pub async fn attach(&mut self) -> (Socket, FakeConsole) {
        let socket = self.try_open(&format!("{BASE}/console")).await.unwrap();
        let console = timeout(PATIENCE, self.consoles.recv()).await.unwrap().unwrap();
        (socket, console)
    }

    /// The code and the body of what cannot be had.
    pub async fn refusal(&self, path: &str) -> (u16, Value) {
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
pub fn why(why: &str) -> Value {
    json!(format!(
        "Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io \"alpine\": {why}"
    ))
}

/// What comes next, but for pings, which may come at any time.
pub async fn next(socket: &mut Socket) -> Option<Result<Message, Error>> {
    loop {
        match timeout(PATIENCE, socket.next()).await.unwrap() {
            Some(Ok(Message::Ping(_))) => {}
            next => return next,
        }
    }
}

/// Binary messages until there are this many bytes.
pub async fn bytes(socket: &mut Socket, count: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    while heard.len() < count {
        match next(socket).await.unwrap().unwrap() {
            Message::Binary(bytes) => heard.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    heard
}

pub fn binary(bytes: &[u8]) -> Message {
    Message::binary(bytes.to_vec())
}

pub fn ends_abruptly(end: Option<&Result<Message, Error>>) -> bool {
    matches!(
        end,
        Some(Err(
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_)
        )) | None
    )
}
