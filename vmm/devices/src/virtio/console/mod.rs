//! The virtio console (5.3): `hvc0`, without sizes or emergency write, and at wish a second port with a name.
//!
//! ```text
//!   InputSource, Port ─► a buffer of the driver's     (asked when a buffer is there, or when told of input)
//!   output ─► in pieces ─► ConsoleOutput, Port
//!   control messages ⇄ `control.rs`: which ports there are, and whether the guest has the second one open
//! ```
//!
//! A driver that does not know of further ports sees the console alone.

mod control;
mod spec;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use self::control::Control;
use super::buffers::Buffers;
use super::device::{QueueError, Stop, VirtioDevice, drain, feed, next_chain, read_config_bytes};
use crate::ConsoleOutput;

/// Most bytes of one chain that are printed or filled; what a chain has beyond that is ignored.
pub const MAX_CHAIN_BYTES: usize = 64 << 10;
/// Bytes that are copied at a time.
const PIECE: usize = 4 << 10;

/// Where the guest's input comes from.
pub trait InputSource: Send {
    /// Puts waiting input into `buffer` and returns its length, zero if there is none.
    ///
    /// Once it has said zero, the device asks again only when told that there is input: after `run_queue(0)`,
    /// [`Console::RECEIVE`].
    fn read(&mut self, buffer: &mut [u8]) -> usize;
}

/// The far end of a port that programs of the guest find by its name, under `/dev/virtio-ports`. Its
/// [`InputSource::read`] is asked again after `run_queue` of [`Console::PORT_RECEIVE`]. All is called with the device
/// locked.
pub trait Port: InputSource {
    /// The name: short, and without a NUL.
    fn name(&self) -> &str;
    /// Takes what the guest says: hostile bytes, at most [`MAX_CHAIN_BYTES`] at a time.
    fn hear(&mut self, bytes: &[u8]);
    /// A program of the guest opened the port, or nobody has it open any more.
    fn opened(&mut self, open: bool);
}

/// The device.
pub struct Console {
    output: Arc<dyn ConsoleOutput>,
    input: Box<dyn InputSource>,
    feed: Feed,
    port: Option<Second>,
}

/// The second port.
struct Second {
    port: Box<dyn Port>,
    feed: Feed,
    control: Control,
    /// The driver knows of ports.
    known: bool,
    /// The driver is to be told something.
    speaks: bool,
}

/// Input on its way to the driver.
struct Feed {
    /// The input in `..waiting` of it has no buffer yet.
    staging: Box<[u8; PIECE]>,
    waiting: Range<usize>,
}

// === impl Feed ===

impl Feed {
    fn new() -> Self {
        Self {
            staging: Box::new([0; PIECE]),
            waiting: 0..0,
        }
    }

    /// Whether there is input in `staging`, after asking for some if there was none.
    fn has_input<S: InputSource + ?Sized>(&mut self, source: &mut S) -> bool {
        if self.waiting.is_empty() {
            self.waiting = 0..source.read(&mut *self.staging).min(PIECE);
        }
        !self.waiting.is_empty()
    }

    /// Puts input into a buffer; what does not fit waits for the next one.
    fn fill(&mut self, buffers: &mut Buffers<'_>) -> u32 {
        let (_, mut to) = buffers.parts();
        let written = to.write(&self.staging[self.waiting.clone()]);
        self.waiting.start += written;
        u32::try_from(written).expect("a piece is far below 4 GiB")
    }
}

// === impl Second ===

impl Second {
    /// Takes the driver's control messages.
    fn hear_control(&mut self, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        drain(queue, memory, |buffers| {
            let (mut from, _) = buffers.parts();
            let mut bytes = [0; spec::CONTROL_LEN];
            if from.read(&mut bytes) == bytes.len()
                && let Some(open) = self.control.take(&bytes, self.port.name())
            {
                self.port.opened(open);
            }
            self.speaks = true;
            Ok(0)
        })
    }

    /// Brings the driver ours, each in a buffer of its own.
    fn say_control(&mut self, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        let mut buffers = Buffers::default();
        while let Some(message) = self.control.next() {
            let Some(chain) = next_chain(queue, memory)? else {
                return Ok(Stop::Empty);
            };
            let head = chain.head_index();
            buffers.load(chain, memory, queue.size())?;
            let (_, mut to) = buffers.parts();
            let written = u32::try_from(to.write(message)).expect("a message is a few bytes");
            self.control.said();
            queue.add_used(memory, head, written)?;
        }
        Ok(Stop::BackendIdle)
    }
}

// === impl Console ===

impl Console {
    /// The queue to run when there is input.
    pub const RECEIVE: usize = spec::RECEIVE;
    /// The queue of the guest's output.
    pub const TRANSMIT: usize = spec::TRANSMIT;
    /// The queue to run when there is input for the second port.
    pub const PORT_RECEIVE: usize = spec::PORT_RECEIVE;

    /// A console between these ends.
    pub fn new(output: Arc<dyn ConsoleOutput>, input: Box<dyn InputSource>) -> Self {
        Self {
            output,
            input,
            feed: Feed::new(),
            port: None,
        }
    }

    /// The same with a second port.
    #[must_use]
    pub fn with_port(self, port: Box<dyn Port>) -> Self {
        let second = Second {
            port,
            feed: Feed::new(),
            control: Control::default(),
            known: false,
            speaks: false,
        };
        Self {
            port: Some(second),
            ..self
        }
    }
}

/// Brings what a chain holds to where it is to go, in pieces.
fn transmit(buffers: &mut Buffers<'_>, mut take: impl FnMut(&[u8])) {
    let (mut from, _) = buffers.parts();
    let mut piece = [0; PIECE];
    for _ in 0..MAX_CHAIN_BYTES / PIECE {
        match from.read(&mut piece) {
            0 => break,
            len => take(&piece[..len]),
        }
    }
}

impl VirtioDevice for Console {
    fn id(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        if self.port.is_some() { spec::F_MULTIPORT } else { 0 }
    }

    fn queue_sizes(&self) -> &[u16] {
        if self.port.is_some() {
            &spec::QUEUE_SIZES
        } else {
            &spec::QUEUE_SIZES[..spec::QUEUES_OF_ONE_PORT]
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = if self.port.is_some() {
            &spec::CONFIG_OF_TWO
        } else {
            &spec::CONFIG
        };
        read_config_bytes(config, offset, data);
    }

    fn activate(&mut self, acked: u64) {
        if let Some(second) = &mut self.port {
            second.known = acked & spec::F_MULTIPORT != 0;
        }
    }

    fn process(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Stop, QueueError> {
        let console = |this: &mut Self| this.feed.has_input(&mut *this.input);
        match (index, self.port.as_mut().filter(|second| second.known)) {
            (spec::RECEIVE, _) => feed(self, queue, memory, console, |this, to| this.feed.fill(to)),
            (spec::TRANSMIT, _) => drain(queue, memory, |buffers| {
                transmit(buffers, |piece| self.output.write(piece));
                Ok(0)
            }),
            (spec::CONTROL_RECEIVE, Some(second)) => second.say_control(queue, memory),
            (spec::CONTROL_TRANSMIT, Some(second)) => second.hear_control(queue, memory),
            (spec::PORT_RECEIVE, Some(second)) => {
                let port = |this: &mut Second| this.feed.has_input(&mut *this.port);
                feed(second, queue, memory, port, |this, to| this.feed.fill(to))
            }
            (spec::PORT_TRANSMIT, Some(second)) => drain(queue, memory, |buffers| {
                transmit(buffers, |piece| second.port.hear(piece));
                Ok(0)
            }),
            // Queues of ports that the driver said it does not know.
            _ => Ok(Stop::BackendIdle),
        }
    }

    fn follow_up(&mut self) -> Option<usize> {
        let second = self.port.as_mut()?;
        std::mem::take(&mut second.speaks).then_some(spec::CONTROL_RECEIVE)
    }

    fn reset(&mut self) {
        self.feed.waiting = 0..0;
        if let Some(second) = &mut self.port {
            second.feed.waiting = 0..0;
            second.known = false;
            if std::mem::take(&mut second.control).is_open() {
                second.port.opened(false);
            }
        }
    }
}
