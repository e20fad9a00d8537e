//! A guest's port as a websocket: a connection's bytes, or one datagram a message.
//!
//! KubeVirt's clients give up the whole connection when their end of it is half closed, so the end of either side ends both.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use kube::Api;
use rvm_types::VirtualMachine;
use tokio::time::{interval, timeout};

use super::answer::{Kind, Refused};
use super::console::close;
use super::open::What;
use super::{Subresources, Upgrade, agreed, running};
use crate::connection::{Connection, Reader, Writer};
use crate::ports::{DialError, Protocol};

/// How often a client is asked whether it is still there.
const PING: Duration = Duration::from_secs(10);
/// How long a client may be silent. An answer to a question counts.
const SILENCE: Duration = Duration::from_secs(60);

/// `GET …/portforward/{port}`
pub(super) async fn serve_tcp(
    server: State<Subresources>,
    Path((namespace, name, port)): Path<(String, String, String)>,
    upgrade: Upgrade,
) -> Result<Response, Refused> {
    let path = Path((namespace, name, port, "tcp".to_owned()));
    serve(server, path, upgrade).await
}

/// `GET virtualmachines/…/portforward/{port}`
pub(super) async fn serve_machine_tcp(
    server: State<Subresources>,
    Path((namespace, name, port)): Path<(String, String, String)>,
    upgrade: Upgrade,
) -> Result<Response, Refused> {
    let path = Path((namespace, name, port, "tcp".to_owned()));
    serve_machine(server, path, upgrade).await
}

/// `GET virtualmachines/…/portforward/{port}/{protocol}`: to its instance, where there is such a VM.
pub(super) async fn serve_machine(
    State(server): State<Subresources>,
    Path(path): Path<(String, String, String, String)>,
    upgrade: Upgrade,
) -> Result<Response, Refused> {
    let (namespace, name) = (&path.0, &path.1);
    let vms: Api<VirtualMachine> = server.objects(namespace, name, Kind::Machine)?;
    if vms.get_metadata_opt(name).await?.is_none() {
        return Err(Refused::not_found(Kind::Machine, name));
    }
    serve(State(server), Path(path), upgrade).await
}

/// `GET …/portforward/{port}/{protocol}`
pub(super) async fn serve(
    State(server): State<Subresources>,
    Path((namespace, name, port, protocol)): Path<(String, String, String, String)>,
    upgrade: Upgrade,
) -> Result<Response, Refused> {
    let protocol = match protocol.as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(Refused::bad_request(format!("{other:?} is not tcp or udp"))),
    };
    let number = port.parse().ok().filter(|port| *port != 0);
    let number = number.ok_or_else(|| Refused::bad_request(format!("{port:?} is not a port")))?;
    let vmi = server.vmi(&namespace, &name).await?;
    running(&vmi, &name)?;
    let upgrade = agreed(upgrade)?;
    let connection = server.node.dial(&vmi, protocol, number).await;
    let connection = connection.map_err(|error| refused(&error))?;
    let held = server.open.hold(What::Port, &namespace, &name);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _held = held;
        forward(socket, connection).await;
    }))
}

fn refused(error: &DialError) -> Refused {
    match error {
        DialError::Unreachable(why) => Refused::unreachable(why),
        DialError::NoNetwork(_) => Refused::bad_request(error.to_string()),
        DialError::Refused(source) => Refused::internal(format!("dialing VM: {source}")),
    }
}

async fn forward(socket: WebSocket, connection: Connection) {
    let (mut out, mut input) = socket.split();
    let Connection { reader, writer, .. } = connection;
    tokio::select! {
        is_end = bring(reader, &mut out) => if is_end {
            close(&mut out).await;
        },
        () = take(&mut input, writer) => {}
    }
}

/// From the guest to the client. Whether the guest is done; else the connection to one of them broke, and a close frame would say otherwise.
async fn bring(mut reader: Reader, out: &mut SplitSink<WebSocket, Message>) -> bool {
    let mut ping = interval(PING);
    loop {
        let message = tokio::select! {
            read = reader.next() => match read {
                Ok(Some(bytes)) => Message::Binary(bytes),
                Ok(None) => return true,
                Err(_) => return false,
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        if out.send(message).await.is_err() {
            return false;
        }
    }
}

/// From the client to the guest, until the client is done or silent.
async fn take(input: &mut SplitStream<WebSocket>, mut writer: Writer) {
    while let Ok(Some(Ok(message))) = timeout(SILENCE, input.next()).await {
        let sent = match message {
            Message::Binary(bytes) => writer.send(bytes).await,
            Message::Close(_) => return,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}
