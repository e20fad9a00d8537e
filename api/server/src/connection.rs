//! A connection to a guest's port, however it is carried: a socket of this host, or a stream to the handler that has the socket.
//!
//! It comes apart into what the guest says and what it is told, so that whoever moves the data need not know which it is.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rvm_proto::MAX_PORT_CHUNK;
use rvm_proto::v1::port_forward_request::Request as IntoPort;
use rvm_proto::v1::port_forward_response::Response as FromPort;
use rvm_proto::v1::{PortForwardRequest, PortForwardResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::ports::Protocol;

/// Bytes that are read from a stream at once; a datagram may have more.
const CHUNK: usize = 16 << 10;

/// A connection to a guest that stands.
#[derive(Debug)]
pub struct Connection {
    pub(crate) protocol: Protocol,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

/// What comes from a guest.
#[derive(Debug)]
pub(crate) enum Reader {
    Tcp(OwnedReadHalf, Vec<u8>),
    Udp(Arc<UdpSocket>, Vec<u8>),
    Carried(Streaming<PortForwardResponse>),
}

/// What goes to a guest.
#[derive(Debug)]
pub(crate) enum Writer {
    Tcp(OwnedWriteHalf),
    Udp(Arc<UdpSocket>),
    Carried(mpsc::Sender<PortForwardRequest>),
}

// === impl Connection ===

impl Connection {
    /// Over a stream of this host.
    pub fn tcp(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            protocol: Protocol::Tcp,
            reader: Reader::Tcp(reader, vec![0; CHUNK]),
            writer: Writer::Tcp(writer),
        }
    }

    /// Over a socket of this host that sends to the guest's port and hears from nobody else.
    pub fn udp(socket: UdpSocket) -> Self {
        let socket = Arc::new(socket);
        Self {
            protocol: Protocol::Udp,
            reader: Reader::Udp(Arc::clone(&socket), vec![0; MAX_PORT_CHUNK]),
            writer: Writer::Udp(socket),
        }
    }

    /// Over a stream to the handler whose connection it is.
    pub(crate) fn carried(
        protocol: Protocol,
        responses: Streaming<PortForwardResponse>,
        requests: mpsc::Sender<PortForwardRequest>,
    ) -> Self {
        Self {
            protocol,
            reader: Reader::Carried(responses),
            writer: Writer::Carried(requests),
        }
    }
}

// === impl Reader ===

impl Reader {
    /// What comes next; nothing where the guest has said all. A port that no datagram reaches is no end: somebody may listen there
    /// later.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match self {
            Self::Tcp(stream, chunk) => {
                let count = stream.read(chunk).await?;
                let bytes = chunk.get(..count).filter(|bytes| !bytes.is_empty());
                Ok(bytes.map(Bytes::copy_from_slice))
            }
            Self::Udp(socket, chunk) => loop {
                match socket.recv(chunk).await {
                    Ok(count) => return Ok(chunk.get(..count).map(Bytes::copy_from_slice)),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) => return Err(error),
                }
            },
            Self::Carried(responses) => {
                let response = responses.message().await.map_err(io::Error::other)?;
                match response.and_then(|response| response.response) {
                    Some(FromPort::Data(bytes)) => Ok(Some(bytes)),
                    Some(FromPort::Ended(_)) | None => Ok(None),
                    Some(FromPort::Connected(_)) => Err(io::Error::other("it says twice that it stands")),
                }
            }
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Sends bytes, or one datagram, which may be lost.
    pub(crate) async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(&bytes).await,
            Self::Udp(socket) => {
                socket.send(&bytes).await.ok();
                Ok(())
            }
            Self::Carried(requests) => {
                let request = PortForwardRequest {
                    request: Some(IntoPort::Data(bytes)),
                };
                let sent = requests.send(request).await;
                sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    /// There is no more to send. A guest that is gone already need not be told.
    pub(crate) async fn finish(self) {
        match self {
            Self::Tcp(mut stream) => {
                stream.shutdown().await.ok();
            }
            // Over a stream of messages, the end of the requests says so.
            Self::Udp(_) | Self::Carried(_) => {}
        }
    }
}
