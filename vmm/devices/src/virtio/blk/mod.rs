//! The virtio block device (5.2): a disk.
//!
//! ```text
//!   chain:  header (16 B, read) │ data (read or written) … │ status (last byte, written)
//!              │                     │
//!              └─ parse, check ──► BlockBackend, straight from or into guest memory ──► OK | IOERR | UNSUPP
//! ```
//!
//! A request is checked as a whole before the backend sees it: one that reaches beyond the disk's end, or one of whose
//! segments does, changes nothing. What is written is flushed at once unless the driver can flush (FLUSH) and the cache
//! is in write-back mode, which it may switch (CONFIG_WCE). A request that the medium makes wait ([`super::medium`]) stays in its
//! queue, with all that came after it. All queues of a disk are served by whoever runs the device, one at a time.

mod request;
mod spec;
#[cfg(test)]
mod tests;

use std::io;

use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use self::request::{Request, Segments, offset_on_disk};
use self::spec::{Config, Failure};
use super::buffers::{Buffers, Part};
use super::device::{MAX_BYTES_PER_TURN, QueueError, Stop, VirtioDevice, next_chain, read_config_bytes};
pub use super::medium::{Alarm, BlockBackend, Cache, Geometry, Limits, OnError, Trouble};
use super::medium::{Failed, Medium};

/// Longest serial that a driver can read.
pub const MAX_SERIAL: usize = VIRTIO_BLK_ID_BYTES as usize;

/// Most queues of a disk.
pub const MAX_QUEUES: u16 = 16;

/// What a disk tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockOptions {
    /// The driver may only read.
    pub read_only: bool,
    /// What the driver gets for GET_ID; cut at [`MAX_SERIAL`] bytes.
    pub serial: String,
    /// How writes are cached until the driver says otherwise.
    pub cache: Cache,
    /// Request queues, of which there is at least one and at most [`MAX_QUEUES`].
    pub queues: u16,
}

/// The device.
pub struct Block {
    medium: Medium,
    config: Config,
    read_only: bool,
    serial: [u8; MAX_SERIAL],
    /// The driver took FLUSH. One that did not will never ask for one.
    flushes: bool,
}

// === impl BlockOptions ===

impl Default for BlockOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            serial: String::new(),
            cache: Cache::default(),
            queues: 1,
        }
    }
}

// === impl Block ===

impl Block {
    /// A disk.
    pub fn new(backend: Box<dyn BlockBackend>, options: &BlockOptions) -> Self {
        let mut serial = [0; MAX_SERIAL];
        for (to, from) in serial.iter_mut().zip(options.serial.bytes()) {
            *to = from;
        }
        let medium = Medium::new(backend, options.cache);
        let config = Config {
            sectors: medium.size() / spec::SECTOR,
            geometry: medium.geometry(),
            writeback: medium.is_cached(),
            queues: options.queues.clamp(1, MAX_QUEUES),
        };
        Self {
            medium,
            config,
            read_only: options.read_only,
            serial,
            flushes: false,
        }
    }

    /// Has this done where the back end fails. After [`Trouble::tell`], all queues are to be run when it may be better.
    #[must_use]
    pub fn failing(mut self, on_error: OnError, trouble: Box<dyn Trouble>) -> Self {
        self.medium.set_on_error(on_error, trouble);
        self
    }

    /// Keeps the disk to these limits. After [`Alarm::ring_at`], all queues are to be run.
    #[must_use]
    pub fn limited(mut self, limits: Limits, alarm: Box<dyn Alarm>) -> Self {
        self.medium.set_limits(limits, alarm);
        self
    }

    /// Serves a request; returns how many bytes were written, the status among them, or the error that it waits for.
    fn serve(&mut self, buffers: &mut Buffers<'_>) -> Result<Result<u32, io::Error>, QueueError> {
        let (mut readable, writable) = buffers.parts();
        let (data, status) = writable.split_last_byte().ok_or(QueueError::NoStatus)?;
        let mut header = [0; spec::HEADER_LEN];
        let done = if readable.read(&mut header) == header.len() {
            self.execute(Request::parse(header), readable, data)
        } else {
            Err(Failure::Io)
        };
        if let Some(error) = self.medium.waits_for() {
            return Ok(Err(error));
        }
        let (code, written) = match done {
            Ok(written) => (spec::OK, written),
            Err(failure) => (failure as u8, 0),
        };
        status.copy_from(&[code]);
        // The transport's bound on chains keeps this below 4 GiB.
        Ok(Ok(u32::try_from(written).unwrap_or(u32::MAX).saturating_add(1)))
    }

    fn execute(&mut self, request: Request, from: Part<'_, '_>, to: Part<'_, '_>) -> Result<u64, Failure> {
        match request {
            Request::Read { sector } => self.read(sector, &to),
            Request::Write { sector } => self.write(sector, &from).map(|()| 0),
            Request::Flush => Ok(self.medium.flush().map(|()| 0)?),
            Request::GetId => Ok({ to }.write(&self.serial) as u64),
            Request::Discard | Request::WriteZeroes if self.read_only => Err(Failure::Unsupported),
            Request::Discard => {
                let segments = Segments::to_discard(from, self.config.sectors)?;
                for range in segments.ranges() {
                    self.medium.discard(range.offset, range.len)?;
                }
                Ok(0)
            }
            Request::WriteZeroes => {
                let segments = Segments::to_zero(from, self.config.sectors)?;
                for range in segments.ranges() {
                    self.medium.write_zeroes(range.offset, range.len, range.unmap)?;
                }
                Ok(self.medium.write_through().map(|()| 0)?)
            }
            Request::Unsupported => Err(Failure::Unsupported),
        }
    }

    fn read(&mut self, sector: u64, to: &Part<'_, '_>) -> Result<u64, Failure> {
        let len = to.len();
        if len > spec::MAX_REQUEST {
            return Err(Failure::Io);
        }
        let offset = offset_on_disk(sector, len, self.config.sectors)?;
        Ok(self.medium.read(offset, to.slices()).map(|()| len)?)
    }

    fn write(&mut self, sector: u64, from: &Part<'_, '_>) -> Result<(), Failure> {
        let len = from.len();
        if self.read_only || len > spec::MAX_REQUEST {
            return Err(Failure::Io);
        }
        let offset = offset_on_disk(sector, len, self.config.sectors)?;
        Ok(self.medium.write(offset, from.slices())?)
    }

    /// Who flushes: the driver, if it can and has not said that everything is to be written through.
    fn agree(&mut self) {
        self.medium.set_write_back(self.flushes && self.config.writeback);
    }
}

impl From<Failed> for Failure {
    fn from(_: Failed) -> Self {
        Self::Io
    }
}

impl VirtioDevice for Block {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let mut features = spec::FEATURE_SIZE_MAX
            | spec::FEATURE_SEG_MAX
            | spec::FEATURE_BLOCK_SIZE
            | spec::FEATURE_TOPOLOGY
            | spec::FEATURE_FLUSH
            | spec::FEATURE_CONFIG_WCE;
        if self.config.queues > 1 {
            features |= spec::FEATURE_MQ;
        }
        features
            | if self.read_only {
                spec::FEATURE_READ_ONLY
            } else {
                spec::FEATURE_DISCARD | spec::FEATURE_WRITE_ZEROES
            }
    }

    fn queue_sizes(&self) -> &[u16] {
        const SIZES: [u16; MAX_QUEUES as usize] = [spec::QUEUE_SIZE; MAX_QUEUES as usize];
        &SIZES[..usize::from(self.config.queues)]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config.bytes(), offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        match data {
            [mode] if offset == spec::WRITEBACK as u64 => self.config.writeback = mode & 1 != 0,
            _ => {}
        }
        self.agree();
    }

    fn activate(&mut self, acked: u64) {
        self.flushes = acked & spec::FEATURE_FLUSH != 0;
        self.agree();
    }

    fn process(&mut self, _: usize, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        let mut buffers = Buffers::default();
        let mut bytes = 0;
        for _ in 0..queue.size() {
            if self.medium.is_ahead() {
                return Ok(Stop::BackendIdle);
            }
            let Some(chain) = next_chain(queue, memory)? else {
                return Ok(Stop::Empty);
            };
            let head = chain.head_index();
            buffers.load(chain, memory, queue.size())?;
            bytes += buffers.len();
            self.medium
                .count(buffers.len().saturating_sub(spec::HEADER_LEN as u64 + 1));
            let written = match self.serve(&mut buffers)? {
                Ok(written) => written,
                Err(error) => {
                    // It is the next one again.
                    queue.set_next_avail(queue.next_avail().wrapping_sub(1));
                    self.medium.tell(&error);
                    return Ok(Stop::BackendIdle);
                }
            };
            queue.add_used(memory, head, written)?;
            if bytes >= MAX_BYTES_PER_TURN {
                break;
            }
        }
        Ok(Stop::Busy)
    }

    fn reset(&mut self) {
        self.flushes = false;
        self.config.writeback = self.medium.is_cached();
        self.agree();
    }
}
