//! `rvm port-forward`: local ports that lead into a guest, by one call of the API for each connection.
//!
//! ```text
//!   local TCP connection ─┐                              half-closed by either end, and so the other one
//!   local UDP peer       ─┼─► PortForward (rvm.v1) ─► guest's port
//!   --stdio              ─┘
//! ```
//!
//! It goes on until it is interrupted; a connection that cannot be made costs one line and that connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use rvm_proto::MAX_PORT_CHUNK;
use rvm_proto::v1::port_forward_request::{Open, Protocol, Request};
use rvm_proto::v1::port_forward_response::Response;
use rvm_proto::v1::{PortForwardRequest, PortForwardResponse};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::args::{Forward, Forwarded, PortForward};
use crate::connect::Client;
use crate::screen::{error_line, progress};

/// Bytes that are read at once.
const CHUNK: usize = 16 << 10;
/// Messages that wait to be sent.
const QUEUE: usize = 16;
/// Connections of one local port at once; more of them wait.
const MOST_CONNECTIONS: usize = 256;
/// How long a UDP peer may be silent before it is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// How long a listener that could not accept (too many open files) waits.
const BREATH: Duration = Duration::from_millis(100);

/// A connection to a guest's port.
struct Connection {
    into: mpsc::Sender<PortForwardRequest>,
    out: Streaming<PortForwardResponse>,
}

pub async fn run(client: Client, namespace: &str, args: &PortForward) -> Result<()> {
    let open = |forward: &Forward| Open {
        namespace: args.target.namespace.clone().unwrap_or(namespace.to_owned()),
        name: args.target.name.clone(),
        protocol: match forward.protocol {
            Forwarded::Tcp => Protocol::Tcp.into(),
            Forwarded::Udp => Protocol::Udp.into(),
        },
        port: forward.remote.into(),
    };
    if args.stdio {
        return match args.ports.as_slice() {
            [one] if one.protocol == Forwarded::Tcp => {
                let connection = Connection::open(client, open(one)).await?;
                Ok(connection.join(tokio::io::stdin(), tokio::io::stdout()).await?)
            }
            _ => bail!("--stdio is for one TCP port"),
        };
    }
    let mut ports = JoinSet::new();
    for forward in &args.ports {
        let local = SocketAddr::new(args.address, forward.local);
        let (client, open) = (client.clone(), open(forward));
        let busy = || format!("cannot listen on {local}");
        match forward.protocol {
            Forwarded::Tcp => {
                let listener = TcpListener::bind(local).await.with_context(busy)?;
                announce("tcp", listener.local_addr()?, forward.remote);
                ports.spawn(tcp(listener, client, open));
            }
            Forwarded::Udp => {
                let socket = UdpSocket::bind(local).await.with_context(busy)?;
                announce("udp", socket.local_addr()?, forward.remote);
                ports.spawn(udp(socket, client, open));
            }
        }
    }
    // They go on for ever; the first that does not ends all.
    let end = ports.join_next().await.context("no port was named")?;
    end.context("a port's task broke")?
}

fn announce(protocol: &str, local: SocketAddr, remote: u16) {
    progress(&format!("Forwarding {protocol} {local} to {remote}"));
}

impl Connection {
    async fn open(mut client: Client, open: Open) -> Result<Self, Status> {
        let (into, requests) = mpsc::channel(QUEUE);
        // The channel is empty and its other end is right here.
        let _ = into.try_send(PortForwardRequest {
            request: Some(Request::Open(open)),
        });
        let mut out = client
            .port_forward(ReceiverStream::new(requests))
            .await?
            .into_inner();
        match out.message().await?.and_then(|first| first.response) {
            Some(Response::Connected(_)) => Ok(Self { into, out }),
            _ => Err(Status::internal("the server has closed the port at once")),
        }
    }

    /// Moves bytes until both ends are done, or one of them breaks.
    async fn join(
        self,
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
    ) -> Result<(), Status> {
        let Self { into, mut out } = self;
        let typed = async move {
            let mut chunk = vec![0; CHUNK];
            // Dropping the sender is what says that there is no more.
            while let Ok(length @ 1..) = reader.read(&mut chunk).await {
                if into.send(data(&chunk[..length])).await.is_err() {
                    return;
                }
            }
        };
        let seen = async move {
            while let Some(response) = out.message().await? {
                match response.response {
                    Some(Response::Data(data)) => {
                        // Who no longer reads has had enough.
                        if writer.write_all(&data).await.is_err() || writer.flush().await.is_err() {
                            return Ok(());
                        }
                    }
                    Some(Response::Ended(_)) => {
                        writer.shutdown().await.ok();
                    }
                    Some(Response::Connected(_)) | None => {}
                }
            }
            Ok(())
        };
        tokio::pin!(seen);
        tokio::select! {
            // The answers' end is the connection's: the server waits for ours, and for the guest's.
            done = &mut seen => done,
            () = typed => seen.await,
        }
    }
}

fn data(bytes: &[u8]) -> PortForwardRequest {
    PortForwardRequest {
        request: Some(Request::Data(Bytes::copy_from_slice(bytes))),
    }
}

fn complain(status: Status) {
    anstream::eprintln!("{}", error_line(&anyhow!(status)));
}

async fn tcp(listener: TcpListener, client: Client, open: Open) -> Result<()> {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await?;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        let (client, open) = (client.clone(), open.clone());
        tokio::spawn(async move {
            let _place = place;
            let (reader, writer) = stream.into_split();
            let joined = async { Connection::open(client, open).await?.join(reader, writer).await };
            if let Err(status) = joined.await {
                complain(status);
            }
        });
    }
}

/// Each local peer has a connection of its own, so that answers find back.
async fn udp(socket: UdpSocket, client: Client, open: Open) -> Result<()> {
    let socket = Arc::new(socket);
    let mut peers: HashMap<SocketAddr, mpsc::Sender<Bytes>> = HashMap::new();
    let mut datagram = vec![0; MAX_PORT_CHUNK];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut datagram).await else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        peers.retain(|_, sender| !sender.is_closed());
        if !peers.contains_key(&peer) && peers.len() >= MOST_CONNECTIONS {
            continue;
        }
        let sender = peers.entry(peer).or_insert_with(|| {
            let (sender, datagrams) = mpsc::channel(QUEUE);
            let (socket, client, open) = (Arc::clone(&socket), client.clone(), open.clone());
            tokio::spawn(async move {
                if let Err(status) = converse(&socket, peer, datagrams, client, open).await {
                    complain(status);
                }
            });
            sender
        });
        // A queue that is full loses a datagram, as networks do.
        let _ = sender.try_send(Bytes::copy_from_slice(&datagram[..length]));
    }
}

/// One peer's datagrams, until it has been silent for long.
async fn converse(
    socket: &UdpSocket,
    peer: SocketAddr,
    mut datagrams: mpsc::Receiver<Bytes>,
    client: Client,
    open: Open,
) -> Result<(), Status> {
    let Connection { into, mut out } = Connection::open(client, open).await?;
    loop {
        let heard = async {
            tokio::select! {
                datagram = datagrams.recv() => Heard::Here(datagram),
                answer = out.message() => Heard::There(answer),
            }
        };
        match timeout(FORGOTTEN, heard).await {
            Err(_) | Ok(Heard::Here(None) | Heard::There(Ok(None))) => return Ok(()),
            Ok(Heard::Here(Some(datagram))) => {
                let request = Some(Request::Data(datagram));
                into.send(PortForwardRequest { request }).await.ok();
            }
            Ok(Heard::There(answer)) => {
                if let Some(Response::Data(data)) = answer?.and_then(|answer| answer.response) {
                    socket.send_to(&data, peer).await.ok();
                }
            }
        }
    }
}

/// From a local peer, or from the guest.
enum Heard {
    Here(Option<Bytes>),
    There(Result<Option<PortForwardResponse>, Status>),
}
