//! One port of a guest, one caller: judging whether it can be reached, then moving data until both ends are done.

use std::io;

use bytes::Bytes;
use rvm_proto::v1::port_forward_request::{self as asked, Open, Request as IntoPort};
use rvm_proto::v1::port_forward_response::{Connected, Ended, Response as FromPort};
use rvm_proto::v1::{PortForwardRequest, PortForwardResponse};
use rvm_proto::{MAX_PORT_CHUNK, reasons};
use rvm_types::VirtualMachineInstance;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::connection::{Connection, Reader, Writer};
use crate::error::{invalid_argument, precondition};
use crate::reach::Unreachable;

/// Messages that wait for a caller before its connection is no longer read.
const QUEUE: usize = 4;

/// What has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A stream of bytes.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Whoever reaches the guests' ports: the handler.
#[tonic::async_trait]
pub trait Ports: Send + Sync + 'static {
    /// Connects to a port of a machine's guest.
    async fn dial(
        &self,
        vmi: &VirtualMachineInstance,
        protocol: Protocol,
        port: u16,
    ) -> Result<Connection, DialError>;
}

/// Why a port cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody can speak to it.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The machine has no network here.
    #[error("{0}")]
    NoNetwork(String),
    /// Nobody takes the connection.
    #[error("the guest does not take the connection")]
    Refused(#[source] io::Error),
}

/// What is asked of a handler.
impl From<Protocol> for asked::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

// === judging ===

/// The port that is asked for.
pub(crate) fn wanted(open: &Open) -> Result<(Protocol, u16), Status> {
    let protocol = match open.protocol() {
        asked::Protocol::Unspecified | asked::Protocol::Tcp => Protocol::Tcp,
        asked::Protocol::Udp => Protocol::Udp,
    };
    match u16::try_from(open.port) {
        Ok(port @ 1..) => Ok((protocol, port)),
        _ => Err(invalid_argument(format!("{} is not a port", open.port))),
    }
}

/// The status that says so about this machine.
pub(crate) fn refusal(name: &str, port: u16, error: &DialError) -> Status {
    let asked = format!("port {port} of {name:?} cannot be reached");
    match error {
        DialError::Unreachable(why) => why.status(&asked),
        DialError::NoNetwork(_) => precondition(reasons::NO_NETWORK, format!("{asked}: {error}"), &[]),
        DialError::Refused(source) => Status::unavailable(format!("{asked}: {error}: {source}")),
    }
}

// === moving data ===

type Outgoing = mpsc::Sender<Result<PortForwardResponse, Status>>;

/// What a caller of this connection receives. The data is moved by a task of its own, which ends when both ends are done, when the
/// caller goes away, or when either breaks.
pub(crate) fn forward(
    connection: Connection,
    requests: Streaming<PortForwardRequest>,
) -> mpsc::Receiver<Result<PortForwardResponse, Status>> {
    let (out, responses) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        if send(&out, FromPort::Connected(Connected {})).await.is_err() {
            return;
        }
        let Connection {
            protocol,
            reader,
            writer,
        } = connection;
        let (from, into) = (bring(reader, &out), take(requests, writer));
        let moved = async {
            match protocol {
                Protocol::Tcp => tokio::try_join!(from, into).map(drop),
                // Datagrams have no end, so the caller's is the end of both.
                Protocol::Udp => tokio::select! {
                    done = from => done,
                    done = into => done,
                },
            }
        };
        tokio::select! {
            () = out.closed() => {}
            moved = moved => {
                if let Err(status) = moved {
                    // The caller is told if it is still there; if not, there is nobody to tell.
                    let _ = out.send(Err(status)).await;
                }
            }
        }
    });
    responses
}

/// From the guest to the caller, until the guest is done.
async fn bring(mut guest: Reader, out: &Outgoing) -> Result<(), Status> {
    while let Some(data) = guest.next().await.map_err(|error| broken(&error))? {
        send(out, FromPort::Data(data)).await?;
    }
    send(out, FromPort::Ended(Ended {})).await
}

/// From the caller to the guest, until the caller is done.
async fn take(mut requests: Streaming<PortForwardRequest>, mut guest: Writer) -> Result<(), Status> {
    while let Some(data) = next(&mut requests).await? {
        guest.send(data).await.map_err(|error| broken(&error))?;
    }
    guest.finish().await;
    Ok(())
}

/// The next data of the caller; none when it is done.
async fn next(requests: &mut Streaming<PortForwardRequest>) -> Result<Option<Bytes>, Status> {
    let Some(request) = requests.message().await? else {
        return Ok(None);
    };
    match request.request {
        Some(IntoPort::Data(data)) if data.len() > MAX_PORT_CHUNK => Err(invalid_argument(format!(
            "more than {MAX_PORT_CHUNK} bytes of data in one message"
        ))),
        Some(IntoPort::Data(data)) => Ok(Some(data)),
        Some(IntoPort::Open(_)) => Err(invalid_argument("the port is open already")),
        None => Err(invalid_argument("an empty request")),
    }
}

fn broken(error: &io::Error) -> Status {
    Status::unavailable(format!("the connection to the guest broke: {error}"))
}

/// Fails when the caller is gone, which nobody is told.
async fn send(out: &Outgoing, response: FromPort) -> Result<(), Status> {
    let response = PortForwardResponse {
        response: Some(response),
    };
    let sent = out.send(Ok(response)).await;
    sent.map_err(|_| Status::cancelled("the caller is gone"))
}
