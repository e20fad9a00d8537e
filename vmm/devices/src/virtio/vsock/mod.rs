//! The virtio socket device (5.10): byte streams between programs of the guest and of the host, without a network.
//!
//! ```text
//!   transmit: header (whose? for whom? how long?) │ data ─► VsockBackend::send
//!   receive:  VsockBackend::receive ─► staging (one packet) ─► header + data ─► the driver's buffers, in as many
//!                                                                               packets as they make necessary
//! ```
//!
//! Connections, credit and ports are the back end's. Here a packet is held against the little that every one of them
//! has to obey: what is from someone who is not this guest, for someone who is not the host, or no stream, is dropped in
//! silence; data that are not there, or are more than [`MAX_DATA`], end their connection.

mod spec;
#[cfg(test)]
mod tests;

use std::ops::Range;

use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

use super::buffers::Buffers;
use super::device::{QueueError, Stop, VirtioDevice, drain, feed, read_config_bytes};

/// Most bytes of data in one packet from the guest; Linux sends up to so many.
pub const MAX_DATA: usize = 64 << 10;
/// Bytes that are fetched from the back end at a time.
const PIECE: usize = 16 << 10;

/// What a packet wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A new connection.
    Request,
    /// The connection stands.
    Response,
    /// There is no such connection, or no longer.
    Reset,
    /// The sender will receive no more, or send no more.
    Shutdown {
        /// It will receive no more.
        receive: bool,
        /// It will send no more.
        send: bool,
    },
    /// Data.
    Data,
    /// Nothing but the credit that every packet carries.
    CreditUpdate,
    /// The sender wants to hear of its credit.
    CreditRequest,
}

/// A packet, without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// The guest's end.
    pub guest_port: u32,
    /// The host's end.
    pub host_port: u32,
    /// What it wants.
    pub op: Op,
    /// How large its sender's buffer for this connection is.
    pub buffer: u32,
    /// How many bytes of the connection have left that buffer so far, modulo 2^32.
    pub forwarded: u32,
}

/// The host's side: whom the guest may connect to, and who connects to it.
pub trait VsockBackend: Send {
    /// Takes a packet from the guest, and its data, up to [`MAX_DATA`] bytes.
    fn send(&mut self, packet: &Packet, data: &[u8]);

    /// The next packet for the guest, and how many bytes of `data` it has filled.
    ///
    /// Once it has said `None`, the device asks again only when told that there is something: after `run_queue(0)`,
    /// [`Vsock::RECEIVE`]. That holds for answers to what was sent, too.
    fn receive(&mut self, data: &mut [u8]) -> Option<(Packet, usize)>;

    /// The guest has forgotten all connections.
    fn reset(&mut self);
}

/// The device.
pub struct Vsock {
    backend: Box<dyn VsockBackend>,
    cid: u64,
    staging: Box<[u8]>,
    outgoing: Box<[u8]>,
    /// A packet that waits for a buffer, and where its data lies in `staging`.
    waiting: Option<(Packet, Range<usize>)>,
}

// === impl Vsock ===

impl Vsock {
    /// The queue to run when the back end has packets.
    pub const RECEIVE: usize = spec::RECEIVE;
    /// The queue of the driver's packets.
    pub const TRANSMIT: usize = spec::TRANSMIT;

    /// The sockets of the guest with this number.
    pub fn new(backend: Box<dyn VsockBackend>, cid: u32) -> Self {
        Self {
            backend,
            cid: u64::from(cid),
            staging: vec![0; PIECE].into_boxed_slice(),
            outgoing: vec![0; MAX_DATA].into_boxed_slice(),
            waiting: None,
        }
    }

    fn has_packet(&mut self) -> bool {
        if self.waiting.is_none() {
            let next = self.backend.receive(&mut self.staging);
            self.waiting = next.map(|(packet, len)| (packet, 0..len.min(PIECE)));
        }
        self.waiting.is_some()
    }

    /// Puts a packet into a buffer; data that does not fit follows in a further packet. A buffer without room for a
    /// header, or for one byte of the data, goes back empty.
    fn fill(&mut self, buffers: &mut Buffers<'_>) -> u32 {
        let (_, mut to) = buffers.parts();
        let Some((packet, data)) = &mut self.waiting else {
            return 0;
        };
        let room = to.len().saturating_sub(spec::HEADER_LEN as u64);
        let len = usize::try_from(room).map_or(data.len(), |room| room.min(data.len()));
        if to.len() < spec::HEADER_LEN as u64 || len < data.len().min(1) {
            return 0;
        }
        let small = "a piece and a header are far below 4 GiB";
        let bytes = u32::try_from(len).expect(small);
        to.write(&spec::header(packet, bytes, self.cid));
        to.write(&self.staging[data.start..data.start + len]);
        data.start += len;
        if data.start == data.end {
            self.waiting = None;
        }
        u32::try_from(spec::HEADER_LEN + len).expect(small)
    }

    fn transmit(&mut self, buffers: &mut Buffers<'_>) {
        let (mut from, _) = buffers.parts();
        let mut header = [0; spec::HEADER_LEN];
        if from.read(&mut header) < header.len() {
            return;
        }
        let Some((mut packet, len)) = spec::parse(&header, self.cid) else {
            return;
        };
        let data = match packet.op {
            Op::Data => usize::try_from(len)
                .ok()
                .and_then(|len| self.outgoing.get_mut(..len)),
            // The others have none, whatever they say.
            _ => self.outgoing.get_mut(..0),
        };
        let whole = data.and_then(|data| (from.read(data) == data.len()).then_some(&*data));
        if whole.is_none() {
            packet.op = Op::Reset;
        }
        self.backend.send(&packet, whole.unwrap_or_default());
    }
}

impl VirtioDevice for Vsock {
    fn id(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &spec::QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.cid.to_le_bytes(), offset, data);
    }

    fn process(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Stop, QueueError> {
        match index {
            spec::RECEIVE => feed(self, queue, memory, Self::has_packet, Self::fill),
            spec::TRANSMIT => drain(queue, memory, |buffers| {
                self.transmit(buffers);
                Ok(0)
            }),
            // Buffers for events that never come.
            _ => Ok(Stop::Empty),
        }
    }

    fn reset(&mut self) {
        self.waiting = None;
        self.backend.reset();
    }
}
