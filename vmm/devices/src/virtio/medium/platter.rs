//! A disk in memory for the tests of every device that has a medium.

use std::io;
use std::sync::{Arc, Mutex};

use vm_memory::VolatileSlice;

use super::{BlockBackend, Geometry};

/// Its size.
pub const SECTORS: u8 = 8;

/// A discard or zeroes: which, where and how much.
pub type Call = (&'static str, u64, u64);

/// A disk in memory that counts flushes.
#[derive(Clone, Default)]
pub struct Platter {
    /// What is on it.
    pub bytes: Arc<Mutex<Vec<u8>>>,
    /// How often it was flushed.
    pub flushes: Arc<Mutex<u32>>,
    /// Other calls, in their order.
    pub calls: Arc<Mutex<Vec<Call>>>,
    /// It fails for ever.
    pub broken: bool,
    /// What it fails with until that is taken away.
    pub fails: Arc<Mutex<Option<io::ErrorKind>>>,
}

impl Platter {
    /// Each sector holds its number, from 1 on.
    pub fn new() -> Self {
        let bytes = (1..=SECTORS).flat_map(|sector| [sector; 512]).collect();
        Self {
            bytes: Arc::new(Mutex::new(bytes)),
            ..Self::default()
        }
    }

    fn fill(&mut self, offset: u64, len: u64, byte: u8) -> io::Result<()> {
        self.check()?;
        let (start, end) = (
            usize::try_from(offset).unwrap(),
            usize::try_from(offset + len).unwrap(),
        );
        self.bytes.lock().unwrap()[start..end].fill(byte);
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        match *self.fails.lock().unwrap() {
            _ if self.broken => Err(io::Error::other("broken")),
            Some(kind) => Err(kind.into()),
            None => Ok(()),
        }
    }
}

impl BlockBackend for Platter {
    fn size(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }

    fn read_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.check()?;
        let bytes = self.bytes.lock().unwrap();
        let mut at = usize::try_from(offset).unwrap();
        for buffer in buffers {
            buffer.copy_from(&bytes[at..at + buffer.len()]);
            at += buffer.len();
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        self.check()?;
        let mut bytes = self.bytes.lock().unwrap();
        let mut at = usize::try_from(offset).unwrap();
        for buffer in buffers {
            buffer.copy_to(&mut bytes[at..at + buffer.len()]);
            at += buffer.len();
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        *self.flushes.lock().unwrap() += 1;
        self.check()
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            physical_block: 4096,
            discard: 65536,
        }
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.calls.lock().unwrap().push(("discard", offset, len));
        self.fill(offset, len, 0xdd)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let call = if unmap { "unmap" } else { "zero" };
        self.calls.lock().unwrap().push((call, offset, len));
        self.fill(offset, len, 0)
    }
}
