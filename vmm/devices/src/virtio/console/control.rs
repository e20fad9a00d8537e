//! The control queues: how driver and device agree on ports (5.3.6.2).
//!
//! ```text
//!   driver: DEVICE_READY 1          device: PORT_ADD 0, PORT_ADD 1
//!           PORT_READY 0, 1                 CONSOLE_PORT 0, PORT_OPEN 0    NAME 1, PORT_OPEN 1
//!           PORT_OPEN 1, 1 or 0     ─► Port::opened: a program of the guest opened or closed it
//! ```

use std::collections::VecDeque;

use super::spec::{CONTROL_LEN, event};

/// Most of our messages that wait for buffers. A driver that begins anew loses those of before; one that asks for more
/// without taking any gets no more.
const MAX_WAITING: usize = 16;

/// The first port, which is the console.
const CONSOLE: u32 = 0;
/// The second port, which has a name.
const NAMED: u32 = 1;

/// A message without what may follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Message {
    port: u32,
    event: u16,
    value: u16,
}

/// What the device has to say, and what it knows of the ports.
#[derive(Debug, Default)]
pub(super) struct Control {
    waiting: VecDeque<Vec<u8>>,
    open: bool,
}

// === impl Message ===

impl Message {
    fn parse(bytes: &[u8; CONTROL_LEN]) -> Self {
        let [p0, p1, p2, p3, e0, e1, v0, v1] = *bytes;
        Self {
            port: u32::from_le_bytes([p0, p1, p2, p3]),
            event: u16::from_le_bytes([e0, e1]),
            value: u16::from_le_bytes([v0, v1]),
        }
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = self.port.to_le_bytes().to_vec();
        bytes.extend(self.event.to_le_bytes());
        bytes.extend(self.value.to_le_bytes());
        bytes
    }
}

// === impl Control ===

impl Control {
    /// Takes a message of the driver. Says whether the named port is open now, if this changed it.
    pub(super) fn take(&mut self, bytes: &[u8; CONTROL_LEN], name: &str) -> Option<bool> {
        let message = Message::parse(bytes);
        match (message.event, message.port) {
            (event::DEVICE_READY, _) if message.value == 1 => {
                self.waiting.clear();
                self.say(CONSOLE, event::PORT_ADD, 1, "");
                self.say(NAMED, event::PORT_ADD, 1, "");
            }
            (event::PORT_READY, CONSOLE) if message.value == 1 => {
                self.say(CONSOLE, event::CONSOLE_PORT, 1, "");
                self.say(CONSOLE, event::PORT_OPEN, 1, "");
            }
            (event::PORT_READY, NAMED) if message.value == 1 => {
                self.say(NAMED, event::PORT_NAME, 1, name);
                self.say(NAMED, event::PORT_OPEN, 1, "");
            }
            (event::PORT_OPEN, NAMED) if (message.value == 1) != self.open => {
                self.open = !self.open;
                return Some(self.open);
            }
            // What the driver has no say in, and ports that are not there.
            _ => {}
        }
        None
    }

    fn say(&mut self, port: u32, event: u16, value: u16, text: &str) {
        if self.waiting.len() < MAX_WAITING {
            let mut bytes = Message { port, event, value }.bytes();
            bytes.extend(text.bytes());
            self.waiting.push_back(bytes);
        }
    }

    /// The next message for the driver, which stays until it is [`Control::said`].
    pub(super) fn next(&self) -> Option<&[u8]> {
        self.waiting.front().map(Vec::as_slice)
    }

    pub(super) fn said(&mut self) {
        self.waiting.pop_front();
    }

    /// Whether a program of the guest has the named port open.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }
}
