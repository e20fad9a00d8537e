//! A disk's medium, whatever the device that a driver reaches it through (virtio-blk, a logical unit on SCSI): the one way to
//! where its bytes are.
//!
//! ```text
//!   request, checked ─► Medium: limits? ─► BlockBackend ─► failed? policy: report, wait, ignore
//!                          └ what was written is flushed at once, unless the driver does that (write-back)
//! ```
//!
//! A disk with limits takes no requests while it is ahead of them, and goes on when its alarm rings. Where the back end fails, the
//! disk's policy says whether the driver sees that; a request that waits for better times is the device's to keep.

mod failing;
#[cfg(test)]
pub mod platter;

use std::io;

use vm_memory::VolatileSlice;

use self::failing::{Doing, Verdict};
pub use self::failing::{OnError, Trouble};
use super::pace::Pace;
pub use super::pace::{Alarm, Limits};

/// Where a disk's bytes are.
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

/// The host did not do what a request asked for. Whether the request fails or waits, [`Medium::waits_for`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    /// For want of space.
    pub(super) no_space: bool,
}

/// A disk's bytes, and all that the host decided of them.
pub(super) struct Medium {
    backend: Box<dyn BlockBackend>,
    cache: Cache,
    /// The driver flushes what it writes.
    write_back: bool,
    pace: Option<Pace>,
    on_error: OnError,
    trouble: Option<Box<dyn Trouble>>,
    /// What the request under way waits for.
    failed: Option<io::Error>,
}

// === impl Medium ===

impl Medium {
    /// A medium that is written through until [`Medium::set_write_back`].
    pub(super) fn new(backend: Box<dyn BlockBackend>, cache: Cache) -> Self {
        Self {
            backend,
            cache,
            write_back: false,
            pace: None,
            on_error: OnError::Report,
            trouble: None,
            failed: None,
        }
    }

    pub(super) fn set_on_error(&mut self, on_error: OnError, trouble: Box<dyn Trouble>) {
        self.on_error = on_error;
        self.trouble = Some(trouble);
    }

    pub(super) fn set_limits(&mut self, limits: Limits, alarm: Box<dyn Alarm>) {
        self.pace = Some(Pace::new(limits, alarm));
    }

    /// Whether the driver flushes what it writes.
    pub(super) fn set_write_back(&mut self, write_back: bool) {
        self.write_back = write_back;
    }

    pub(super) fn size(&self) -> u64 {
        self.backend.size()
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.backend.geometry()
    }

    /// Whether it is cached in write-back mode, until a driver says otherwise.
    pub(super) fn is_cached(&self) -> bool {
        self.cache != Cache::Writethrough
    }

    /// Whether the next request has to wait for the disk's limits; its alarm is set then.
    pub(super) fn is_ahead(&mut self) -> bool {
        self.pace.as_mut().is_some_and(Pace::waits)
    }

    /// Counts a request that is let through.
    pub(super) fn count(&mut self, bytes: u64) {
        if let Some(pace) = &mut self.pace {
            pace.take(bytes);
        }
    }

    /// The error for which the request that has just failed is to wait, if it is; asked once.
    pub(super) fn waits_for(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// Tells whoever can help that a request waits.
    pub(super) fn tell(&self, error: &io::Error) {
        self.trouble.iter().for_each(|trouble| trouble.tell(error));
    }

    pub(super) fn read(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> Result<(), Failed> {
        let done = self.backend.read_at(offset, buffers);
        self.settle(Doing::Read, done)
    }

    pub(super) fn write(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> Result<(), Failed> {
        let done = self.backend.write_at(offset, buffers);
        self.settle(Doing::Write, done)?;
        self.write_through()
    }

    pub(super) fn discard(&mut self, offset: u64, len: u64) -> Result<(), Failed> {
        let done = self.backend.discard(offset, len);
        self.settle(Doing::Write, done)
    }

    /// Not flushed: there may be more of the same request.
    pub(super) fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> Result<(), Failed> {
        let done = self.backend.write_zeroes(offset, len, unmap);
        self.settle(Doing::Write, done)
    }

    /// Flushes what was just written, unless the driver does.
    pub(super) fn write_through(&mut self) -> Result<(), Failed> {
        if self.write_back { Ok(()) } else { self.flush() }
    }

    pub(super) fn flush(&mut self) -> Result<(), Failed> {
        match self.cache {
            Cache::Unsafe => Ok(()),
            Cache::Writeback | Cache::Writethrough => {
                let done = self.backend.flush();
                self.settle(Doing::Write, done)
            }
        }
    }

    /// What becomes of what the back end did.
    fn settle(&mut self, doing: Doing, done: io::Result<()>) -> Result<(), Failed> {
        let Err(error) = done else { return Ok(()) };
        let failed = Failed {
            no_space: error.kind() == io::ErrorKind::StorageFull,
        };
        match self.on_error.verdict(doing, &error) {
            Verdict::Pass => Ok(()),
            Verdict::Fail => Err(failed),
            Verdict::Wait => {
                self.failed = Some(error);
                Err(failed)
            }
        }
    }
}
