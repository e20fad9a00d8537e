//! What disks do, counted where their requests meet the image, whichever device they came through.
//!
//! ```text
//!   device ─► Metered ─► image          the disk's thread counts
//!                └─ Meter ◄─ Meters     whoever asks for statistics reads, for as long as the disk is there
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use rvmm_devices::virtio::blk::{BlockBackend, Geometry};
use vm_memory::VolatileSlice;

/// The meters of all disks that are there.
#[derive(Clone, Default)]
pub struct Meters(Arc<Mutex<Vec<Named>>>);

/// A disk's name, and its meter while it is there.
type Named = (String, Weak<Meter>);

/// One disk's.
#[derive(Default)]
struct Meter {
    read: Kind,
    written: Kind,
    flushed: Kind,
}

/// Requests of a kind that were done.
#[derive(Default)]
struct Kind {
    requests: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

/// An image whose requests are counted.
struct Metered {
    image: Box<dyn BlockBackend>,
    meter: Arc<Meter>,
}

// === impl Meters ===

impl Meters {
    /// Counts what is done to this image, in this disk's name.
    pub fn on(&self, disk: String, image: Box<dyn BlockBackend>) -> Box<dyn BlockBackend> {
        let meter = Arc::new(Meter::default());
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        meters.retain(|(_, meter)| meter.strong_count() > 0);
        meters.push((disk, Arc::downgrade(&meter)));
        Box::new(Metered { image, meter })
    }

    /// Adds what was counted, under the names that `vmm/control` documents.
    pub fn add_to(&self, sums: &mut BTreeMap<String, u64>) {
        let meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (disk, meter) in meters.iter() {
            let Some(meter) = meter.upgrade() else { continue };
            for (verb, kind) in [
                ("read", &meter.read),
                ("write", &meter.written),
                ("flush", &meter.flushed),
            ] {
                for (what, counter) in [
                    ("requests", &kind.requests),
                    ("bytes", &kind.bytes),
                    ("nanoseconds", &kind.nanoseconds),
                ] {
                    let sum = sums.entry(format!("disk.{disk}.{verb}-{what}")).or_default();
                    *sum = sum.saturating_add(counter.load(Ordering::Relaxed));
                }
            }
        }
    }
}

// === impl Kind ===

impl Kind {
    /// Does it, and counts it if it succeeded.
    fn count<T>(&self, bytes: u64, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let began = Instant::now();
        let done = act()?;
        let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // One thread writes a disk's counters.
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.nanoseconds.fetch_add(took, Ordering::Relaxed);
        Ok(done)
    }
}

// === impl Metered ===

fn total(buffers: &[VolatileSlice<'_>]) -> u64 {
    buffers.iter().map(|buffer| buffer.len() as u64).sum()
}

impl BlockBackend for Metered {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn geometry(&self) -> Geometry {
        self.image.geometry()
    }

    fn read_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let image = &mut self.image;
        self.meter
            .read
            .count(total(buffers), || image.read_at(offset, buffers))
    }

    fn write_at(&mut self, offset: u64, buffers: &[VolatileSlice<'_>]) -> io::Result<()> {
        let image = &mut self.image;
        self.meter
            .written
            .count(total(buffers), || image.write_at(offset, buffers))
    }

    fn flush(&mut self) -> io::Result<()> {
        let image = &mut self.image;
        self.meter.flushed.count(0, || image.flush())
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.image.discard(offset, len)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.image.write_zeroes(offset, len, unmap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all but what is written at 0.
    struct Image;

    impl BlockBackend for Image {
        fn size(&self) -> u64 {
            1 << 20
        }

        fn geometry(&self) -> Geometry {
            Geometry {
                physical_block: 512,
                discard: 512,
            }
        }

        fn read_at(&mut self, _: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
            Ok(())
        }

        fn write_at(&mut self, offset: u64, _: &[VolatileSlice<'_>]) -> io::Result<()> {
            if offset == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn discard(&mut self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn write_zeroes(&mut self, _: u64, _: u64, _: bool) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_was_done_is_counted_and_what_failed_is_not() {
        let meters = Meters::default();
        let mut disk = meters.on("disk0".to_owned(), Box::new(Image));
        let mut bytes = [0; 4096];
        let buffers = [VolatileSlice::from(&mut bytes[..])];
        disk.read_at(0, &buffers).unwrap();
        disk.write_at(512, &buffers).unwrap();
        disk.write_at(1024, &buffers).unwrap();
        disk.write_at(0, &buffers).unwrap_err();
        disk.flush().unwrap();
        let mut sums = BTreeMap::new();
        meters.add_to(&mut sums);
        let counted = ["read", "write", "flush"].map(|verb| {
            (
                sums[&format!("disk.disk0.{verb}-requests")],
                sums[&format!("disk.disk0.{verb}-bytes")],
            )
        });
        assert_eq!(counted, [(1, 4096), (2, 8192), (1, 0)]);
    }

    #[test]
    fn a_disk_that_was_pulled_out_is_counted_no_longer() {
        let meters = Meters::default();
        drop(meters.on("disk0".to_owned(), Box::new(Image)));
        let mut sums = BTreeMap::new();
        meters.add_to(&mut sums);
        assert_eq!(sums, BTreeMap::new());
    }
}
