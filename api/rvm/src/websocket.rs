//! A websocket of the Kubernetes API, by the kubeconfig's own way in: what `plain.kubevirt.io` carries is bytes, and nothing else.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::anyhow;
use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, Stream, StreamExt, TryStreamExt};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::cluster::{Cluster, Said};

/// The only protocol that is spoken.
const PROTOCOL: &str = "plain.kubevirt.io";
/// The longest refusal that is read.
const MAX_REFUSAL: usize = 64 << 10;

/// An open websocket.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

// === impl Cluster ===

impl Cluster {
    /// Opens the websocket at this path.
    pub async fn websocket(&self, path: &str) -> Result<Socket, Said> {
        let key = generate_key();
        let request = Request::get(path)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key)
            .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL)
            .body(Body::empty())
            .map_err(|error| Said::Nothing(kube::Error::HttpError(error)))?;
        let response = self.client().send(request).await.map_err(Said::Nothing)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(response).await);
        }
        let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if accepted.is_none_or(|accepted| accepted.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes())
        {
            return Err(Said::NoWebsocket);
        }
        let upgraded = hyper::upgrade::on(response).await;
        let upgraded = upgraded.map_err(|error| Said::Nothing(kube::Error::HyperError(error)))?;
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
    }
}

async fn refusal(response: Response<Body>) -> Said {
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Said::refused(code, &body)
}

/// What goes to the server.
pub struct Outgoing {
    sink: SplitSink<Socket, Message>,
    is_done: Arc<AtomicBool>,
}

/// What comes of a message.
enum Heard {
    Bytes(Bytes),
    Nothing,
    End,
}

/// Both directions. What comes goes on until the other end closes as one that is done; after we have, it may end as it likes.
pub fn halves(socket: Socket) -> (Outgoing, impl Stream<Item = anyhow::Result<Bytes>> + Send) {
    let (sink, input) = socket.split();
    let is_done = Arc::new(AtomicBool::new(false));
    let we_are_done = Arc::clone(&is_done);
    let heard = input.map(move |message| match heard(message) {
        Err(_) if we_are_done.load(Ordering::Relaxed) => Ok(Heard::End),
        heard => heard,
    });
    let heard = heard.take_while(|heard| ready(!matches!(heard, Ok(Heard::End))));
    let heard = heard.try_filter_map(|heard| {
        ready(Ok(match heard {
            Heard::Bytes(bytes) => Some(bytes),
            Heard::Nothing | Heard::End => None,
        }))
    });
    (Outgoing { sink, is_done }, heard)
}

fn heard(message: Result<Message, Error>) -> anyhow::Result<Heard> {
    match message {
        Ok(Message::Binary(bytes)) => Ok(Heard::Bytes(bytes)),
        Ok(Message::Close(Some(frame))) if frame.code != CloseCode::Normal => Err(anyhow!(
            "the server has closed it: {} {}",
            frame.code,
            frame.reason
        )),
        Ok(Message::Close(_)) | Err(Error::ConnectionClosed) => Ok(Heard::End),
        // Who sends text sends it to nobody.
        Ok(_) => Ok(Heard::Nothing),
        Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_)) => {
            Err(anyhow!("the connection was lost, or another viewer has taken it"))
        }
        Err(error) => Err(error.into()),
    }
}

// === impl Outgoing ===

impl Outgoing {
    /// Sends bytes; false where nobody takes them any more, of which the side that reads tells.
    pub async fn send(&mut self, bytes: Bytes) -> bool {
        self.sink.send(Message::Binary(bytes)).await.is_ok()
    }

    /// Says that this was all.
    pub async fn close(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
        // Whoever is gone needs no goodbye.
        let _ = self.sink.close().await;
    }
}
