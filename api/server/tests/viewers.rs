//! The console for several viewers, through the web console's door: in process as in local mode, and on to another server as in a cluster.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::{SinkExt, StreamExt};
use kube::Config;
use rvm_server::Subresources;
use rvm_server::fake::{FakeApi, FakeConsole, FakeMachines};
use rvm_server::web::{self, OwnToken, WebConsole};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Long enough for anything that is going to happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough to see that nothing happens.
const SILENCE: Duration = Duration::from_millis(300);
const CONSOLE: &str =
    "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachineinstances/alpine/console";
/// Bytes that may be unshown, as `viewers.rs` has it.
const WINDOW: usize = 512 << 10;

/// Where the door leads.
#[derive(Debug, Clone, Copy)]
enum Behind {
    Process,
    Server,
}

struct Lab {
    address: std::net::SocketAddr,
    token: String,
    consoles: mpsc::UnboundedReceiver<FakeConsole>,
}

struct Viewer(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Lab {
    async fn new(behind: Behind) -> Self {
        let (api, (machines, consoles)) = (FakeApi::default(), FakeMachines::new());
        api.put(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "alpine", "namespace": "default", "uid": "u"},
            "spec": {"domain": {"devices": {}}}, "status": {"phase": "Running", "nodeName": "n1"},
        }));
        let below = Subresources::new(api.client(), Arc::new(machines)).router();
        let folder = tempfile::tempdir().unwrap();
        let own = OwnToken::kept(&folder.path().join("token")).unwrap();
        let token = own.text().to_owned();
        let console = match behind {
            Behind::Process => WebConsole::of_local_mode(below, Arc::new(own)),
            Behind::Server => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let url = format!("http://{}", listener.local_addr().unwrap());
                tokio::spawn(async move { axum::serve(listener, below).await });
                WebConsole::of_cluster(Config::new(url.parse().unwrap())).unwrap()
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(web::local(listener, console));
        Self {
            address,
            token,
            consoles,
        }
    }

    async fn open(&self, query: &str, token: &str) -> Result<Viewer, Error> {
        let mut request = format!("ws://{}{CONSOLE}{query}", self.address)
            .into_client_request()
            .unwrap();
        let token = URL_SAFE_NO_PAD.encode(token);
        let protocols = format!("viewers.rvm.v1, base64url.bearer.authorization.k8s.io.{token}");
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", protocols.parse().unwrap());
        let (socket, response) = connect_async(request).await?;
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "viewers.rvm.v1");
        Ok(Viewer(socket))
    }

    /// A viewer, and the machine's end of its console.
    async fn attach(&mut self, query: &str) -> (Viewer, FakeConsole) {
        let viewer = self.open(query, &self.token).await.unwrap();
        let console = timeout(PATIENCE, self.consoles.recv()).await.unwrap().unwrap();
        (viewer, console)
    }
}

impl Viewer {
    async fn word(&mut self) -> Value {
        match timeout(PATIENCE, self.0.next()).await.unwrap() {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?} is no word"),
        }
    }

    /// Bytes that come until nothing does for a while.
    async fn all(&mut self) -> usize {
        let mut count = 0;
        while let Ok(message) = timeout(SILENCE, self.0.next()).await {
            match message {
                Some(Ok(Message::Binary(bytes))) => count += bytes.len(),
                Some(Ok(Message::Text(_))) => {}
                other => panic!("{other:?} after {count} bytes"),
            }
        }
        count
    }

    async fn say(&mut self, word: &str) {
        self.0.send(Message::text(word)).await.unwrap();
    }
}

fn attached(types: bool) -> Value {
    json!({"attached": {"node": "n1", "accelerator": "tcg", "types": types}})
}

async fn one_types_and_all_see(behind: Behind) {
    let mut lab = Lab::new(behind).await;
    let (mut first, mut its) = lab.attach("").await;
    assert_eq!(first.word().await, attached(true));
    its.write_all(b"history").await.unwrap();
    assert_eq!(first.all().await, 7);
    first.0.send(Message::binary(b"a".to_vec())).await.unwrap();
    assert_eq!(its.read_u8().await.unwrap(), b'a');

    let (mut looks, _its) = lab.attach("?readOnly=true").await;
    assert_eq!(looks.word().await, attached(false));
    first.0.send(Message::binary(b"b".to_vec())).await.unwrap();
    assert_eq!(its.read_u8().await.unwrap(), b'b', "who looks takes nothing");

    let (mut second, mut theirs) = lab.attach("").await;
    assert_eq!(second.word().await, attached(true));
    assert_eq!(first.word().await, json!({"types": false}));
    first.0.send(Message::binary(b"c".to_vec())).await.unwrap();
    its.write_all(b"goes on").await.unwrap();
    assert_eq!(first.all().await, 7);
    let nothing = timeout(SILENCE, its.read_u8()).await;
    assert!(nothing.is_err(), "its turn is over: {nothing:?}");
    second.0.send(Message::binary(b"d".to_vec())).await.unwrap();
    assert_eq!(theirs.read_u8().await.unwrap(), b'd');

    // The machine ends.
    drop(theirs);
    let end = timeout(PATIENCE, second.0.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(end)))) = end else {
        panic!("{end:?} is no end");
    };
    assert_eq!(u16::from(end.code), 1000);
}

#[tokio::test]
async fn of_several_viewers_one_types_and_all_see() {
    one_types_and_all_see(Behind::Process).await;
}

#[tokio::test]
async fn of_several_viewers_of_a_cluster_one_types_and_all_see() {
    one_types_and_all_see(Behind::Server).await;
}

#[tokio::test]
async fn a_viewer_is_sent_what_it_can_show() {
    let mut lab = Lab::new(Behind::Process).await;
    let (mut viewer, mut console) = lab.attach("").await;
    viewer.word().await;
    let flood = tokio::spawn(async move {
        console.write_all(&vec![b'x'; 2 * WINDOW]).await.unwrap();
        console
    });
    assert_eq!(viewer.all().await, WINDOW);
    viewer.say(r#"{"shown":1000}"#).await;
    assert_eq!(viewer.all().await, 1000);
    // More than there was buys nothing.
    viewer.say(r#"{"shown":99999999}"#).await;
    assert_eq!(viewer.all().await, WINDOW - 1000);
    let _console = flood.await.unwrap();
}

#[tokio::test]
async fn who_says_what_is_not_said_is_let_go() {
    let mut lab = Lab::new(Behind::Process).await;
    for word in ["shown", "{}", r#"{"shown":-1}"#, r#"{"shown":1,"more":2}"#] {
        let (mut viewer, _console) = lab.attach("").await;
        viewer.word().await;
        viewer.say(word).await;
        let end = timeout(PATIENCE, viewer.0.next()).await.unwrap();
        assert!(
            !matches!(end, Some(Ok(Message::Binary(_) | Message::Text(_)))),
            "{word}: {end:?}"
        );
    }
}

#[tokio::test]
async fn without_the_token_there_is_no_console() {
    let lab = Lab::new(Behind::Process).await;
    for token in ["", "guess"] {
        let Err(Error::Http(refused)) = lab.open("", token).await else {
            panic!("{token:?} is no token");
        };
        assert_eq!(refused.status().as_u16(), 401);
    }
}
