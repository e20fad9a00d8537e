//! One connection to a guest's port, by whichever API leads there.

use anyhow::{Result, bail};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use rvm_proto::v1::PortForwardRequest;
use rvm_proto::v1::port_forward_request::{Open, Protocol, Request};
use rvm_proto::v1::port_forward_response::Response;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::QUEUE;
use crate::args::Forwarded;
use crate::cluster::{Cluster, Resource};
use crate::connect::{Client, Door};
use crate::websocket::halves;

/// Bytes that are read at once.
const CHUNK: usize = 16 << 10;

/// A guest's port.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub namespace: Option<String>,
    pub resource: Resource,
    pub name: String,
    pub protocol: Forwarded,
    pub number: u16,
}

/// A connection to it. Dropping `into` says that there is no more.
pub(super) struct Connection {
    pub into: mpsc::Sender<Bytes>,
    pub out: BoxStream<'static, Result<Heard>>,
}

/// What comes from a guest.
pub(super) enum Heard {
    Data(Bytes),
    /// No more, though it goes on to listen.
    Ended,
}

// === impl Connection ===

impl Connection {
    pub(super) async fn open(door: &Door, port: &Port) -> Result<Self> {
        match door {
            Door::Rvm(client) => Self::by_rvm(client.clone(), port).await,
            Door::Kubernetes(cluster) => Self::by_kubernetes(cluster, port).await,
        }
    }

    async fn by_rvm(mut client: Client, port: &Port) -> Result<Self> {
        let protocol = match port.protocol {
            Forwarded::Tcp => Protocol::Tcp,
            Forwarded::Udp => Protocol::Udp,
        };
        let open = Open {
            namespace: port.namespace.clone().unwrap_or_default(),
            name: port.name.clone(),
            protocol: protocol.into(),
            port: port.number.into(),
        };
        let (into, data) = mpsc::channel(QUEUE);
        let requests = stream::iter([Request::Open(open)])
            .chain(ReceiverStream::new(data).map(Request::Data))
            .map(|request| PortForwardRequest {
                request: Some(request),
            });
        let mut out = client.port_forward(requests).await?.into_inner();
        match out.message().await?.and_then(|first| first.response) {
            Some(Response::Connected(_)) => {}
            _ => bail!("the server has closed the port at once"),
        }
        let out = out.map_err(anyhow::Error::from).try_filter_map(|response| {
            std::future::ready(Ok(match response.response {
                Some(Response::Data(data)) => Some(Heard::Data(data)),
                Some(Response::Ended(_)) => Some(Heard::Ended),
                Some(Response::Connected(_)) | None => None,
            }))
        });
        let out = out.boxed();
        Ok(Self { into, out })
    }

    /// Half of a websocket cannot be closed: the first end that is done ends both.
    async fn by_kubernetes(cluster: &Cluster, port: &Port) -> Result<Self> {
        let protocol = match port.protocol {
            Forwarded::Tcp => "tcp",
            Forwarded::Udp => "udp",
        };
        let cluster = match &port.namespace {
            Some(namespace) => cluster.in_another(namespace),
            None => cluster.clone(),
        };
        let what = format!("portforward/{}/{protocol}", port.number);
        let path = cluster.below(port.resource, &port.name, &what);
        let (mut to_guest, out) = halves(cluster.websocket(&path).await?);
        let (into, mut data) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            while let Some(bytes) = data.recv().await {
                if !to_guest.send(bytes).await {
                    return;
                }
            }
            to_guest.close().await;
        });
        let out = out.map_ok(Heard::Data).boxed();
        Ok(Self { into, out })
    }

    /// Moves bytes until both ends are done, or one of them breaks.
    pub(super) async fn join(
        self,
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
    ) -> Result<()> {
        let Self { into, mut out } = self;
        let typed = async move {
            let mut chunk = vec![0; CHUNK];
            // Dropping the sender is what says that there is no more.
            while let Ok(length @ 1..) = reader.read(&mut chunk).await {
                let data = Bytes::copy_from_slice(&chunk[..length]);
                if into.send(data).await.is_err() {
                    return;
                }
            }
        };
        let seen = async move {
            while let Some(heard) = out.next().await {
                match heard? {
                    Heard::Data(data) => {
                        // Who no longer reads has had enough.
                        if writer.write_all(&data).await.is_err() || writer.flush().await.is_err() {
                            return Ok(());
                        }
                    }
                    Heard::Ended => {
                        writer.shutdown().await.ok();
                    }
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
