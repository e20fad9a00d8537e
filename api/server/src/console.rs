//! One console, one viewer: judging whether it can be attached, then moving bytes until one end has had enough. One of several viewers types
//! (`turns`); the others look.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rvm_proto::v1::console_request::Request as FromViewer;
use rvm_proto::v1::console_response::{Attached, Response as ToViewer, TakenOver};
use rvm_proto::v1::{ConsoleRequest, ConsoleResponse};
use rvm_proto::{MAX_CONSOLE_CHUNK, reasons};
use rvm_types::VirtualMachineInstance;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::error::{invalid_argument, precondition};
use crate::reach::Unreachable;
use crate::turns::Turn;

/// Bytes that are read from a console at once.
const CHUNK: usize = 16 << 10;
/// Chunks that wait for a viewer before its console is no longer read.
const QUEUE: usize = 4;

/// What a console's reader hears where the way to the machine's node was lost, and nobody knows how the machine is.
pub(crate) const LINK_LOST: io::ErrorKind = io::ErrorKind::NetworkDown;

/// A byte stream both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// Whoever can open the consoles of machines: the handler.
#[tonic::async_trait]
pub trait Consoles: Send + Sync + 'static {
    /// Opens the serial console of a machine that runs: its backlog comes first, then what it prints.
    /// Who comes to type takes the turn of whoever types.
    async fn attach(&self, vmi: &VirtualMachineInstance, role: Role) -> Result<ConsoleStream, AttachError>;
}

/// What somebody comes to a console for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To type.
    Types,
    /// To look.
    Looks,
}

/// An open console.
pub struct ConsoleStream {
    stream: Pin<Box<dyn Duplex>>,
    node: String,
    accelerator: String,
    turn: Turn,
}

/// Why a console cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Nobody can speak to it.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The machine was made without a serial console.
    #[error("it has no serial console (autoattachSerialConsole is false)")]
    NoConsole,
}

// === impl ConsoleStream ===

impl ConsoleStream {
    /// An open console of a machine on this node, and its viewer's turn to type.
    pub fn new(stream: impl Duplex + 'static, node: impl Into<String>, turn: Turn) -> Self {
        Self {
            stream: Box::pin(stream),
            node: node.into(),
            accelerator: String::new(),
            turn,
        }
    }

    /// The bytes and the turn alone.
    pub(crate) fn into_parts(self) -> (Pin<Box<dyn Duplex>>, Turn) {
        (self.stream, self.turn)
    }

    /// Where the machine runs, and by what.
    pub(crate) fn whereabouts(&self) -> (&str, &str) {
        (&self.node, &self.accelerator)
    }

    /// Says what runs the machine: kvm or tcg.
    #[must_use]
    pub fn with_accelerator(mut self, accelerator: impl Into<String>) -> Self {
        self.accelerator = accelerator.into();
        self
    }
}

// === judging ===

/// What the object alone says against attaching to its console.
pub(crate) fn judge(vmi: &VirtualMachineInstance) -> Result<(), AttachError> {
    if !vmi.has_serial_console() {
        return Err(AttachError::NoConsole);
    }
    Ok(Unreachable::judge(vmi)?)
}

/// The status that says so about this machine.
pub(crate) fn refusal(name: &str, error: &AttachError) -> Status {
    let asked = format!("the console of {name:?} cannot be opened");
    match error {
        AttachError::Unreachable(why) => why.status(&asked),
        AttachError::NoConsole => precondition(reasons::NO_CONSOLE, format!("{asked}: {error}"), &[]),
    }
}

// === moving bytes ===

type Outgoing = mpsc::Sender<Result<ConsoleResponse, Status>>;

/// What a viewer of this console receives. The bytes are moved by a task of their own, which ends when the machine
/// closes its console, when the viewer goes away, or when either breaks.
pub(crate) fn view(
    console: ConsoleStream,
    requests: Streaming<ConsoleRequest>,
    read_only: bool,
) -> mpsc::Receiver<Result<ConsoleResponse, Status>> {
    let (out, responses) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let ConsoleStream {
            stream,
            node,
            accelerator,
            mut turn,
        } = console;
        let attached = ToViewer::Attached(Attached { node, accelerator });
        if send(&out, attached).await.is_err() {
            return;
        }
        let (reader, writer) = tokio::io::split(stream);
        let types = AtomicBool::new(!read_only);
        let pass_on = async {
            turn.over().await;
            types.store(false, Ordering::Relaxed);
            // Whoever is gone need not know.
            let _ = send(&out, ToViewer::TakenOver(TakenOver {})).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = out.closed() => {}
            end = print(reader, &out) => {
                if let Err(status) = end {
                    let _ = out.send(Err(status)).await;
                }
            }
            () = pass_on => {}
            Some(end) = type_in(requests, writer, &types) => {
                if let Err(status) = end {
                    // The viewer is told if it is still there; if not, there is nobody to tell.
                    let _ = out.send(Err(status)).await;
                }
            }
        }
    });
    responses
}

/// From the console to the viewer, until the console closes or the viewer is gone.
async fn print(mut console: ReadHalf<Pin<Box<dyn Duplex>>>, out: &Outgoing) -> Result<(), Status> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = match console.read(&mut chunk).await {
            Ok(length @ 1..) => length,
            Err(error) if error.kind() == LINK_LOST => {
                return Err(Status::unavailable("the way to the machine's node was lost"));
            }
            // A console that breaks is a machine that is gone, and its viewer learns that from the end of the stream.
            Ok(_) | Err(_) => return Ok(()),
        };
        let output = Bytes::copy_from_slice(&chunk[..length]);
        if send(out, ToViewer::Output(output)).await.is_err() {
            return Ok(());
        }
    }
}

/// From the viewer to the console. Some when the stream must end: the viewer has had enough, or it breaks the rules
/// or the connection. None when the viewer has no more to type or the console no longer takes it, since there may
/// still be something to read. What somebody types who is not the one who `types` is ignored.
async fn type_in(
    mut requests: Streaming<ConsoleRequest>,
    mut console: WriteHalf<Pin<Box<dyn Duplex>>>,
    types: &AtomicBool,
) -> Option<Result<(), Status>> {
    loop {
        let input = match requests.message().await {
            Ok(request) => match request?.request {
                Some(FromViewer::Input(input)) if input.len() > MAX_CONSOLE_CHUNK => {
                    let message = format!("more than {MAX_CONSOLE_CHUNK} bytes of input in one message");
                    return Some(Err(invalid_argument(message)));
                }
                Some(FromViewer::Input(input)) => input,
                Some(FromViewer::Resize(_)) => continue,
                Some(FromViewer::Close(_)) => return Some(Ok(())),
                Some(FromViewer::Open(_)) => {
                    return Some(Err(invalid_argument("the console is open already")));
                }
                None => return Some(Err(invalid_argument("an empty console request"))),
            },
            Err(status) => return Some(Err(status)),
        };
        if types.load(Ordering::Relaxed) {
            console.write_all(&input).await.ok()?;
            console.flush().await.ok()?;
        }
    }
}

async fn send(out: &Outgoing, response: ToViewer) -> Result<(), mpsc::error::SendError<()>> {
    let response = ConsoleResponse {
        response: Some(response),
    };
    out.send(Ok(response))
        .await
        .map_err(|_| mpsc::error::SendError(()))
}
