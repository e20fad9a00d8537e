//! A machine's serial console as a websocket: raw bytes in binary messages, both ways.
//!
//! One viewer at a time, as KubeVirt has it: the next one who comes to type, by whichever way, takes over, and the first sees its connection end without a close frame,
//! which is how virtctl tells that from a console that has ended. Nobody loses output by it: the machine's console begins with
//! its history for each of them. With `?readOnly=true` (rvm's own; KubeVirt knows nobody who only looks) nobody is taken anything from, and
//! what is typed goes nowhere. Who asks for the subprotocol of [`viewers`] and has to let another type goes on looking.
//!
//! A console that has come to its end says so by a close frame; where the way to the machine's node is lost there is none, as where
//! KubeVirt's own is.

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use futures::stream::{SplitSink, SplitStream};
use futures::{FutureExt, SinkExt, StreamExt};
use rvm_types::VirtualMachineInstance;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::answer::Refused;
use super::open::What;
use super::viewers::{self, VIEWERS};
use super::{PROTOCOL, Subresources, Upgrade, agreed, running};
use crate::console::{AttachError, ConsoleStream, LINK_LOST, Role};

/// Bytes of one message to a viewer.
const CHUNK: usize = 16 << 10;
/// Messages that are still taken from a viewer whose turn is over, so that its connection ends rather than breaks.
const LAST_WORDS: usize = 64;

/// How a console is asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    #[serde(rename = "readOnly", default)]
    read_only: Option<String>,
}

/// `GET …/console`
pub(super) async fn serve(
    State(server): State<Subresources>,
    Path((namespace, name)): Path<(String, String)>,
    Query(asked): Query<Asked>,
    upgrade: Upgrade,
) -> Result<Response, Refused> {
    let vmi = server.vmi(&namespace, &name).await?;
    judge(&vmi, &name)?;
    let upgrade = agreed(upgrade)?.protocols([PROTOCOL, VIEWERS]);
    let of_several = upgrade
        .selected_protocol()
        .is_some_and(|chosen| chosen == VIEWERS);
    let role = asked.role()?;
    let console = server.node.attach(&vmi, role).await;
    let console = console.map_err(|error| refused(&error))?;
    let held = server.open.hold(What::Console, &namespace, &name);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _held = held;
        if of_several {
            viewers::view(socket, console, role).await;
        } else {
            view(socket, console, role).await;
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

// === impl Asked ===

impl Asked {
    fn role(&self) -> Result<Role, Refused> {
        match self.read_only.as_deref() {
            None | Some("false") => Ok(Role::Types),
            Some("true") => Ok(Role::Looks),
            Some(other) => Err(Refused::bad_request(format!(
                "readOnly is true or false, not {other:?}"
            ))),
        }
    }
}

async fn view(socket: WebSocket, console: ConsoleStream, role: Role) {
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
        is_end = print(reader, &mut out) => if is_end {
            close(&mut out).await;
        },
        () = type_in(&mut input, writer, role) => {}
    }
}

/// From the machine to the viewer. Whether the machine is done; else it is the way to one of them that is gone.
async fn print(mut reader: impl AsyncRead + Unpin, out: &mut SplitSink<WebSocket, Message>) -> bool {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = match reader.read(&mut chunk).await {
            Ok(count @ 1..) => count,
            Ok(_) => return true,
            Err(error) => return error.kind() != LINK_LOST,
        };
        let bytes = chunk.get(..count).unwrap_or_default().to_vec();
        if out.send(Message::Binary(bytes.into())).await.is_err() {
            return false;
        }
    }
}

/// From the viewer to the machine, until the viewer is done.
async fn type_in(input: &mut SplitStream<WebSocket>, mut writer: impl AsyncWrite + Unpin, role: Role) {
    while let Some(Ok(message)) = input.next().await {
        let typed = match message {
            Message::Binary(bytes) if role == Role::Types => bytes,
            Message::Close(_) => return,
            // Text is nobody's: KubeVirt's clients send none and pass none on.
            Message::Binary(_) | Message::Text(_) | Message::Ping(_) | Message::Pong(_) => continue,
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
