//! The console for several viewers: the subprotocol `viewers.rvm.v1` of the same websocket, for the web console and whoever likes.
//!
//! ```text
//!   binary  either way   the console's bytes; history first
//!   text    to a viewer  {"attached":{"node":"n1","accelerator":"tcg","types":true}}   first of all
//!                        {"types":false}                                               somebody else has taken the keyboard
//!                        {"alive":true}                                                every ten seconds
//!           from one     {"shown":4096}                                                so many bytes have been dealt with
//! ```
//!
//! As by rvm.v1, one of them types, the last one who came to, and the others go on seeing everything; who comes with `?readOnly=true` only
//! looks. To take the keyboard back is to come anew. Beyond a window of bytes that a viewer has not said to have shown, its console is
//! read no further, since a browser has no other way to say "slower": the machine's hub then skips, and says so. A viewer that sends
//! what is not said here is let go. The websocket ends with 1000 when the machine has.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior};

use super::console::close;
use crate::console::{ConsoleStream, LINK_LOST, Role};

/// The subprotocol.
pub(super) const VIEWERS: &str = "viewers.rvm.v1";

/// Bytes of one message to a viewer.
const CHUNK: usize = 16 << 10;
/// Bytes that a viewer may have before it, unshown.
const WINDOW: usize = 512 << 10;
/// How often a viewer hears that its connection stands.
const ALIVE: Duration = Duration::from_secs(10);
/// How long a viewer that takes nothing is waited for.
const STALLED: Duration = Duration::from_secs(60);

/// What a viewer says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    shown: usize,
}

/// What one viewer may still be sent.
#[derive(Debug)]
struct Window {
    left: usize,
}

// === impl Window ===

impl Window {
    fn open() -> Self {
        Self { left: WINDOW }
    }

    fn room(&self) -> usize {
        self.left.min(CHUNK)
    }

    fn sent(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// Whoever says to have shown more than there was gets no more for it.
    fn shown(&mut self, bytes: usize) {
        self.left = self.left.saturating_add(bytes).min(WINDOW);
    }
}

/// Serves one viewer until it or the machine is done.
pub(super) async fn view(socket: WebSocket, console: ConsoleStream, role: Role) {
    let (mut out, mut input) = socket.split();
    let mut types = role == Role::Types;
    let (node, accelerator) = console.whereabouts();
    let attached = json!({"attached": {"node": node, "accelerator": accelerator, "types": types}});
    let (stream, mut turn) = console.into_parts();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (mut window, mut chunk) = (Window::open(), vec![0; CHUNK]);
    let mut alive = tokio::time::interval_at(Instant::now() + ALIVE, ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = tell(&mut out, &attached).await;
    while told.is_some() {
        let room = window.room();
        told = tokio::select! {
            () = turn.over(), if types => {
                types = false;
                tell(&mut out, &json!({"types": false})).await
            }
            read = reader.read(chunk.get_mut(..room).unwrap_or_default()), if room > 0 => match read {
                Ok(count @ 1..) => {
                    window.sent(count);
                    let bytes = chunk.get(..count).unwrap_or_default().to_vec();
                    send(&mut out, Message::Binary(bytes.into())).await
                }
                // Nobody knows how the machine is.
                Err(error) if error.kind() == LINK_LOST => None,
                _ => {
                    close(&mut out).await;
                    None
                }
            },
            message = input.next() => match message {
                Some(Ok(Message::Binary(typed))) if types => writer.write_all(&typed).await.ok(),
                Some(Ok(Message::Text(said))) => {
                    let said: Option<Said> = serde_json::from_str(&said).ok();
                    said.map(|said| window.shown(said.shown))
                }
                // What somebody types whose turn is over may have been on its way.
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => Some(()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => None,
            },
            _ = alive.tick() => tell(&mut out, &json!({"alive": true})).await,
        };
    }
}

async fn tell(out: &mut SplitSink<WebSocket, Message>, word: &Value) -> Option<()> {
    send(out, Message::text(word.to_string())).await
}

/// Sends a message; nothing where the viewer is gone, or might as well be.
async fn send(out: &mut SplitSink<WebSocket, Message>, message: Message) -> Option<()> {
    tokio::time::timeout(STALLED, out.send(message)).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_is_sent_no_more_than_its_window() {
        let mut window = Window::open();
        let mut sent = 0;
        while window.room() > 0 {
            sent += window.room();
            window.sent(window.room());
        }
        assert_eq!(sent, WINDOW);
        window.shown(100);
        assert_eq!(window.room(), 100);
        window.shown(usize::MAX);
        assert_eq!(window.left, WINDOW);
    }
}
