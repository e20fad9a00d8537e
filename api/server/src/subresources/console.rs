//! A machine's serial console as a websocket: raw bytes in binary messages, both ways.
//!
//! One viewer at a time, as KubeVirt has it: the next one who comes to type, by whichever way, takes over, and the first sees its connection end without a close frame,
//! which is how virtctl tells that from a console that has ended. Nobody loses output by it: the machine's console begins with
//! its history for each of them. Who asks for the subprotocol of [`viewers`] goes on looking instead.

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use futures::stream::{SplitSink, SplitStream};
use futures::{FutureExt, SinkExt, StreamExt};
use rvm_types::VirtualMachineInstance;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::answer::Refused;
use super::open::What;
use super::viewers::{self, VIEWERS, Wish};
use super::{PROTOCOL, Subresources, Upgrade, agreed, running};
use crate::console::{AttachError, ConsoleStream, Role};

/// Bytes of one message to a viewer.
const CHUNK: usize = 16 << 10;
/// Messages that are still taken from a viewer whose turn is over, so that its connection ends rather than breaks.
const LAST_WORDS: usize = 64;

/// `GET …/console`
pub(super) async fn serve(
    State(server): State<Subresources>,
    Path((namespace, name)): Path<(String, String)>,
    Query(wish): Query<Wish>,
    upgrade: Upgrade,
) -> Result<Response, Refused> {
    let vmi = server.vmi(&namespace, &name).await?;
    judge(&vmi, &name)?;
    let upgrade = agreed(upgrade)?.protocols([PROTOCOL, VIEWERS]);
    let of_several = upgrade
        .selected_protocol()
        .is_some_and(|chosen| chosen == VIEWERS);
    let role = if of_several { wish.role() } else { Role::Types };
    let console = server.node.attach(&vmi, role).await;
    let console = console.map_err(|error| refused(&error))?;
    let held = server.open.hold(What::Console, &namespace, &name);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _held = held;
        if of_several {
            viewers::view(socket, console, role).await;
        } else {
            view(socket, console).await;
        }
    }))
}

/// `GET …/vnc`: a machine without a display says so in KubeVirt's words.
pub(super) async fn no_display(
    State(server): State<Subresources>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Response, Refused> {
    server.vmi(&namespace, &name).await?;
    Err(Refused::bad_request("No graphics devices are present."))
}

fn judge(vmi: &VirtualMachineInstance, name: &str) -> Result<(), Refused> {
    if !vmi.has_serial_console() {
        return Err(refused(&AttachError::NoConsole));
    }
    running(vmi, name)
}

fn refused(error: &AttachError) -> Refused {
    match error {
        AttachError::NoConsole => Refused::bad_request("No serial consoles are present."),
        AttachError::Unreachable(why) => Refused::unreachable(why),
    }
}

async fn view(socket: WebSocket, console: ConsoleStream) {
    let (mut out, mut input) = socket.split();
    let (stream, mut turn) = console.into_parts();
    let (reader, writer) = tokio::io::split(stream);
    tokio::select! {
        () = turn.over() => {
            for _ in 0..LAST_WORDS {
                if input.next().now_or_never().is_none() {
                    break;
                }
            }
        }
        () = print(reader, &mut out) => close(&mut out).await,
        () = type_in(&mut input, writer) => {}
    }
}

/// From the machine to the viewer, until the machine is done.
async fn print(mut reader: impl AsyncRead + Unpin, out: &mut SplitSink<WebSocket, Message>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(count @ 1..) = reader.read(&mut chunk).await {
        let bytes = chunk.get(..count).unwrap_or_default().to_vec();
        if out.send(Message::Binary(bytes.into())).await.is_err() {
            return;
        }
    }
}

/// From the viewer to the machine, until the viewer is done.
async fn type_in(input: &mut SplitStream<WebSocket>, mut writer: impl AsyncWrite + Unpin) {
    while let Some(Ok(message)) = input.next().await {
        let typed = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return,
            // Text is nobody's: KubeVirt's clients send none and pass none on.
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => continue,
        };
        if writer.write_all(&typed).await.is_err() {
            return;
        }
    }
}

/// Ends a websocket as one that has come to its end.
pub(super) async fn close(out: &mut SplitSink<WebSocket, Message>) {
    let frame = CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    };
    // Whoever is gone needs no goodbye.
    let _ = out.send(Message::Close(Some(frame))).await;
}
