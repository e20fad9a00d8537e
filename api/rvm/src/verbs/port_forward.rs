//! `rvm port-forward`: local ports that lead into a guest, by one call of the API for each connection.
//!
//! ```text
//!   local TCP connection ─┐                              half-closed by either end, and so the other one
//!   local UDP peer       ─┼─► PortForward (rvm.v1), or a websocket ─► guest's port
//!   --stdio              ─┘
//! ```
//!
//! It goes on until it is interrupted; a connection that cannot be made costs one line and that connection.

mod connection;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::StreamExt;
use rvm_proto::MAX_PORT_CHUNK;
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::connection::{Connection, Heard, Port};
use crate::args::{Forward, Forwarded, Global, PortForward};
use crate::connect::Door;
use crate::screen::{error_line, progress};

/// Messages that wait to be sent.
const QUEUE: usize = 16;
/// Connections of one local port at once; more of them wait.
const MOST_CONNECTIONS: usize = 256;
/// How long a UDP peer may be silent before it is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// How long a listener that could not accept (too many open files) waits.
const BREATH: Duration = Duration::from_millis(100);

pub async fn run(global: &Global, args: &PortForward) -> Result<()> {
    if args.vsock {
        bail!("--vsock is not there: rvm reaches a guest's ports by its network");
    }
    let door = Door::find(global).await?;
    let port = |forward: &Forward| Port {
        namespace: args.target.namespace.clone().or_else(|| global.namespace.clone()),
        resource: args.target.resource,
        name: args.target.name.clone(),
        protocol: forward.protocol,
        number: forward.remote,
    };
    if args.stdio {
        return match args.ports.as_slice() {
            [one] if one.protocol == Forwarded::Tcp => {
                let connection = Connection::open(&door, &port(one)).await?;
                connection.join(tokio::io::stdin(), tokio::io::stdout()).await
            }
            [_] => bail!("--stdio is for TCP alone"),
            _ => bail!("only one port supported when forwarding to stdout"),
        };
    }
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut ports = JoinSet::new();
    for forward in &args.ports {
        let local = SocketAddr::new(args.address, forward.local);
        let (door, port) = (door.clone(), port(forward));
        let busy = || format!("cannot listen on {local}");
        match forward.protocol {
            Forwarded::Tcp => {
                let listener = TcpListener::bind(local).await.with_context(busy)?;
                announce("tcp", listener.local_addr()?, forward.remote);
                ports.spawn(tcp(listener, door, port));
            }
            Forwarded::Udp => {
                let socket = UdpSocket::bind(local).await.with_context(busy)?;
                announce("udp", socket.local_addr()?, forward.remote);
                ports.spawn(udp(socket, door, port));
            }
        }
    }
    // They go on for ever; the first that does not ends all, and so does who interrupts them, which is how it is meant to end.
    tokio::select! {
        _ = interrupted.recv() => Ok(()),
        end = ports.join_next() => end.context("no port was named")?.context("a port's task broke")?,
    }
}

fn announce(protocol: &str, local: SocketAddr, remote: u16) {
    progress(&format!("Forwarding {protocol} {local} to {remote}"));
}

fn complain(error: &anyhow::Error) {
    anstream::eprintln!("{}", error_line(error));
}

async fn tcp(listener: TcpListener, door: Door, port: Port) -> Result<()> {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await?;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(BREATH).await;
            continue;
        };
        let (door, port) = (door.clone(), port.clone());
        tokio::spawn(async move {
            let _place = place;
            let (reader, writer) = stream.into_split();
            let joined = async { Connection::open(&door, &port).await?.join(reader, writer).await };
            if let Err(error) = joined.await {
                complain(&error);
            }
        });
    }
}

/// Each local peer has a connection of its own, so that answers find back.
async fn udp(socket: UdpSocket, door: Door, port: Port) -> Result<()> {
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
            let (socket, door, port) = (Arc::clone(&socket), door.clone(), port.clone());
            tokio::spawn(async move {
                if let Err(error) = converse(&socket, peer, datagrams, door, port).await {
                    complain(&error);
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
    door: Door,
    port: Port,
) -> Result<()> {
    let Connection { into, mut out } = Connection::open(&door, &port).await?;
    loop {
        let heard = async {
            tokio::select! {
                datagram = datagrams.recv() => Side::Here(datagram),
                answer = out.next() => Side::There(answer.transpose()),
            }
        };
        match timeout(FORGOTTEN, heard).await {
            Err(_) | Ok(Side::Here(None) | Side::There(Ok(None))) => return Ok(()),
            Ok(Side::Here(Some(datagram))) => {
                into.send(datagram).await.ok();
            }
            Ok(Side::There(answer)) => {
                if let Some(Heard::Data(data)) = answer? {
                    socket.send_to(&data, peer).await.ok();
                }
            }
        }
    }
}

/// From a local peer, or from the guest.
enum Side {
    Here(Option<Bytes>),
    There(Result<Option<Heard>>),
}
