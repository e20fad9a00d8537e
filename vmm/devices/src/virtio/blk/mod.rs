//! The virtio block device (5.2): a disk.
//!
//! ```text
//!   chain:  header (16 B, read) │ data (read or written) … │ status (last byte, written)
//!              │                     │
//!              └─ parse, check ──► BlockBackend, straight from or into guest memory ──► OK | IOERR | UNSUPP
//! ```
//!
//! A request is checked as a whole before the backend sees it: one that reaches beyond the disk's end changes
//! nothing. A driver that does not negotiate FLUSH expects write-through and gets it.

mod request;
mod spec;
#[cfg(test)]
mod tests;

use std::io;

use virtio_bindings::virtio_blk::VIRTIO_BLK_ID_BYTES;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::Queue;
use vm_memory::{GuestMemoryMmap, VolatileSlice};

use self::request::{Request, offset_on_disk};
use self::spec::Failure;
use super::buffers::{Buffers, Part};
use super::device::{QueueError, Stop, VirtioDevice, drain, read_config_bytes};

/// Longest serial that a driver can read.
pub const MAX_SERIAL: usize = VIRTIO_BLK_ID_BYTES as usize;

/// Where the disk's bytes are.
pub trait BlockBackend: Send {
    /// Bytes on the disk. Constant; what lies beyond the last whole sector of 512 bytes cannot be reached.
    fn size(&self) -> u64;

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
}

/// What a disk tells of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockOptions {
    /// The driver may only read.
    pub read_only: bool,
    /// What the driver gets for GET_ID; cut at [`MAX_SERIAL`] bytes.
    pub serial: String,
}

/// The device.
pub struct Block {
    backend: Box<dyn BlockBackend>,
    sectors: u64,
    read_only: bool,
    serial: [u8; MAX_SERIAL],
    /// The driver did not take FLUSH, so it will never ask for one.
    write_through: bool,
}

// === impl Block ===

impl Block {
    /// A disk.
    pub fn new(backend: Box<dyn BlockBackend>, options: &BlockOptions) -> Self {
        let mut serial = [0; MAX_SERIAL];
        for (to, from) in serial.iter_mut().zip(options.serial.bytes()) {
            *to = from;
        }
        let sectors = backend.size() / spec::SECTOR;
        Self {
            backend,
            sectors,
            read_only: options.read_only,
            serial,
            write_through: true,
        }
    }

    /// Serves a request; returns how many bytes were written, the status among them.
    fn serve(&mut self, buffers: &mut Buffers<'_>) -> Result<u32, QueueError> {
        let (mut readable, writable) = buffers.parts();
        let (data, status) = writable.split_last_byte().ok_or(QueueError::NoStatus)?;
        let mut header = [0; spec::HEADER_LEN];
        let done = if readable.read(&mut header) == header.len() {
            self.execute(Request::parse(header), &readable, data)
        } else {
            Err(Failure::Io)
        };
        let (code, written) = match done {
            Ok(written) => (spec::OK, written),
            Err(failure) => (failure as u8, 0),
        };
        status.copy_from(&[code]);
        // The transport's bound on chains keeps this below 4 GiB.
        Ok(u32::try_from(written).unwrap_or(u32::MAX).saturating_add(1))
    }

    fn execute(
        &mut self,
        request: Request,
        from: &Part<'_, '_>,
        mut to: Part<'_, '_>,
    ) -> Result<u64, Failure> {
        match request {
            Request::Read { .. } if to.len() > spec::MAX_REQUEST => Err(Failure::Io),
            Request::Read { sector } => {
                let offset = offset_on_disk(sector, to.len(), self.sectors)?;
                self.backend
                    .read_at(offset, to.slices())
                    .map_err(|_| Failure::Io)?;
                Ok(to.len())
            }
            Request::Write { .. } if self.read_only || from.len() > spec::MAX_REQUEST => Err(Failure::Io),
            Request::Write { sector } => {
                let offset = offset_on_disk(sector, from.len(), self.sectors)?;
                self.backend
                    .write_at(offset, from.slices())
                    .map_err(|_| Failure::Io)?;
                if self.write_through {
                    self.flush()?;
                }
                Ok(0)
            }
            Request::Flush => self.flush().map(|()| 0),
            Request::GetId => Ok(to.write(&self.serial) as u64),
            Request::Unsupported => Err(Failure::Unsupported),
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.backend.flush().map_err(|_| Failure::Io)
    }
}

impl VirtioDevice for Block {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let read_only = if self.read_only {
            spec::FEATURE_READ_ONLY
        } else {
            0
        };
        spec::FEATURE_SEG_MAX | spec::FEATURE_BLOCK_SIZE | spec::FEATURE_FLUSH | read_only
    }

    fn queue_sizes(&self) -> &[u16] {
        &[spec::QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&spec::config(self.sectors), offset, data);
    }

    fn activate(&mut self, acked: u64) {
        self.write_through = acked & spec::FEATURE_FLUSH == 0;
    }

    fn process(&mut self, _: usize, queue: &mut Queue, memory: &GuestMemoryMmap) -> Result<Stop, QueueError> {
        drain(queue, memory, |buffers| self.serve(buffers))
    }

    fn reset(&mut self) {
        self.write_through = true;
    }
}
