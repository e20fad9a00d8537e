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
//! is in write-back mode, which it may switch (CONFIG_WCE). A disk with limits stops taking requests while it is ahead
//! of them, and goes on when its alarm rings. Where the back end fails, the disk's policy says whether the driver sees that;
//! a request that waits for better times stays in its queue, with all that came after it. All queues of a disk are served by whoever runs the device, one at a time.

mod failing;
mod request;
mod spec;
#[cfg(test)]
mod tests;

use std::io;

use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestMemoryMmap, VolatileSlice};

use self::failing::{Doing, Verdict};
pub use self::failing::{OnError, Trouble};
use self::request::{Request, Segments, offset_on_disk};
use self::spec::{Config, Failure};
use super::buffers::{Buffers, Part};
use super::device::{MAX_BYTES_PER_TURN, QueueError, Stop, VirtioDevice, next_chain, read_config_bytes};
use super::pace::Pace;
pub use super::pace::{Alarm, Limits};

/// Longest serial that a driver can read.
pub const MAX_SERIAL: usize = VIRTIO_BLK_ID_BYTES as usize;

/// Most queues of a disk.
pub const MAX_QUEUES: u16 = 16;

/// Where the disk's bytes are.
pub trait BlockBackend: Send {
    /// Bytes on the disk. Constant; what lies beyond the last whole sector of 512 bytes cannot be reached.
    fn size(&self) -> u64;

    /// What requests this disk likes best.
    fn geometry(&self) -> Geometry;

    /// Fills all buffers with what is at `offset`. The range lies on the disk.
    ///
    /// # Errors
    /// When the buffers could not all be filled.
    fn read_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Writes all buffers to `offset`. The range lies on the disk, which is not read-only.
    ///
    /// # Errors
    /// When the buffers could not all be written.
    fn write_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()>;

    /// Makes sure that what was written survives a crash of the host.
    ///
    /// # Errors
    /// When that is not certain.
    fn flush(&mut self) -> io::Result<()>;

    /// Gives back the space of a range whose content is not needed any more, as far as that is possible. The range lies
    /// on the disk, which is not read-only.
    ///
    /// # Errors
    /// When it failed; that it is not possible is no failure.
    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes a range read as zeroes; its space may be given back if `unmap`. The range lies on the disk, which is not
    /// read-only.
    ///
    /// # Errors
    /// When not all of it is sure to read as zeroes.
    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
}

/// Sizes in bytes that a driver should keep to, powers of two. It need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// What the disk writes at once; smaller writes have to read first.
    pub physical_block: u32,
    /// What the disk can give back.
    pub discard: u32,
}

/// When what was written is safe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cache {
    /// Once the driver has flushed.
    #[default]
    Writeback,
    /// At once.
    Writethrough,
    /// Never: flushes do nothing.
    Unsafe,
}

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
    backend: Box<dyn BlockBackend>,
    config: Config,
    read_only: bool,
    serial: [u8; MAX_SERIAL],
    cache: Cache,
    /// The driver took FLUSH. One that did not will never ask for one.
    flushes: bool,
    pace: Option<Pace>,
    on_error: OnError,
    trouble: Option<Box<dyn Trouble>>,
    /// What the request under way waits for.
    failed: Option<io::Error>,
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
        let config = Config {
            sectors: backend.size() / spec::SECTOR,
            geometry: backend.geometry(),
            writeback: options.cache != Cache::Writethrough,
            queues: options.queues.clamp(1, MAX_QUEUES),
        };
        Self {
            backend,
            config,
            read_only: options.read_only,
            serial,
            cache: options.cache,
            flushes: false,
            pace: None,
            on_error: OnError::Report,
            trouble: None,
            failed: None,
        }
    }

    /// Has this done where the back end fails. After [`Trouble::tell`], all queues are to be run when it may be better.
    #[must_use]
    pub fn failing(mut self, on_error: OnError, trouble: Box<dyn Trouble>) -> Self {
        self.on_error = on_error;
        self.trouble = Some(trouble);
        self
    }

    /// Keeps the disk to these limits. After [`Alarm::ring_at`], all queues are to be run.
    #[must_use]
    pub fn limited(mut self, limits: Limits, alarm: Box<dyn Alarm>) -> Self {
        self.pace = Some(Pace::new(limits, alarm));
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
        if let Some(error) = self.failed.take() {
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

    /// What becomes of what the back end did.
    fn settle(&mut self, doing: Doing, done: io::Result<()>) -> Result<(), Failure> {
        let Err(error) = done else { return Ok(()) };
        match self.on_error.verdict(doing, &error) {
            Verdict::Pass => Ok(()),
            Verdict::Fail => Err(Failure::Io),
            Verdict::Wait => {
                self.failed = Some(error);
                Err(Failure::Io)
            }
        }
    }

    fn execute(&mut self, request: Request, from: Part<'_, '_>, to: Part<'_, '_>) -> Result<u64, Failure> {
        match request {
            Request::Read { sector } => self.read(sector, &to),
            Request::Write { sector } => self.write(sector, &from).map(|()| 0),
            Request::Flush => self.flush().map(|()| 0),
            Request::GetId => Ok({ to }.write(&self.serial) as u64),
            Request::Discard | Request::WriteZeroes if self.read_only => Err(Failure::Unsupported),
            Request::Discard => {
                let segments = Segments::to_discard(from, self.config.sectors)?;
                for range in segments.ranges() {
                    let done = self.backend.discard(range.offset, range.len);
                    self.settle(Doing::Write, done)?;
                }
                Ok(0)
            }
            Request::WriteZeroes => {
                let segments = Segments::to_zero(from, self.config.sectors)?;
                for range in segments.ranges() {
                    let done = self.backend.write_zeroes(range.offset, range.len, range.unmap);
                    self.settle(Doing::Write, done)?;
                }
                self.write_through().map(|()| 0)
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
        let done = self.backend.read_at(offset, to.slices());
        self.settle(Doing::Read, done).map(|()| len)
    }

    fn write(&mut self, sector: u64, from: &Part<'_, '_>) -> Result<(), Failure> {
        let len = from.len();
        if self.read_only || len > spec::MAX_REQUEST {
            return Err(Failure::Io);
        }
        let offset = offset_on_disk(sector, len, self.config.sectors)?;
        let done = self.backend.write_at(offset, from.slices());
        self.settle(Doing::Write, done)?;
        self.write_through()
    }

    /// Flushes what was just written, unless the driver does.
    fn write_through(&mut self) -> Result<(), Failure> {
        if self.flushes && self.config.writeback {
            Ok(())
        } else {
            self.flush()
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        match self.cache {
            Cache::Unsafe => Ok(()),
            Cache::Writeback | Cache::Writethrough => {
                let done = self.backend.flush();
                self.settle(Doing::Write, done)
            }
        }
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
    }

    fn activate(&mut self, acked: u64) {
        self.flushes = acked & spec::FEATURE_FLUSH != 0;
    }

    fn process(&mut self, _: usize, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        let mut buffers = Buffers::default();
        let mut bytes = 0;
        for _ in 0..queue.size() {
            if self.pace.as_mut().is_some_and(Pace::waits) {
                return Ok(Stop::BackendIdle);
            }
            let Some(chain) = next_chain(queue, memory)? else {
                return Ok(Stop::Empty);
            };
            let head = chain.head_index();
            buffers.load(chain, memory, queue.size())?;
            bytes += buffers.len();
            if let Some(pace) = &mut self.pace {
                pace.take(buffers.len().saturating_sub(spec::HEADER_LEN as u64 + 1));
            }
            let written = match self.serve(&mut buffers)? {
                Ok(written) => written,
                Err(error) => {
                    // It is the next one again.
                    queue.set_next_avail(queue.next_avail().wrapping_sub(1));
                    self.trouble.iter().for_each(|trouble| trouble.tell(&error));
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
        self.config.writeback = self.cache != Cache::Writethrough;
    }
}
