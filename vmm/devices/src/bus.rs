//! Address → (device, offset): where an access of a vCPU ends up.
//!
//! vCPUs share the map for the moment of a look-up; only the device itself is locked for the access. A part of the map
//! can be another bus: there devices come, go and move while vCPUs run, as behind a PCI bridge. A bad access can come
//! from the guest alone and does no harm: it reads all-ones, writes nothing and is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Registers at some place in the address space.
///
/// Infallible on purpose: a device can ignore an access, it cannot abort the machine.
pub trait BusDevice: Send {
    /// Fills `data` from the registers at `offset` in the device's window.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Writes `data` to the registers at `offset` in the device's window.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// A window in the address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Why a device cannot be put where it was wanted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BusError {
    /// The window has no address in it, or reaches beyond the last one.
    #[error("the window of {len:#x} bytes at {base:#x} is empty or wraps around", base = .0.base, len = .0.len)]
    BadRange(Range),
    /// Another device is there already.
    #[error("the window at {:#x} overlaps the one at {:#x}", .0.base, .1.base)]
    Overlap(Range, Range),
}

/// The devices of one address space.
#[derive(Default)]
pub struct Bus {
    /// Sorted by base, without overlaps.
    entries: RwLock<Vec<Entry>>,
    bad_accesses: AtomicU64,
}

struct Entry {
    range: Range,
    target: Target,
}

#[derive(Clone)]
enum Target {
    /// Gets offsets into its window.
    Device(Arc<Mutex<dyn BusDevice>>),
    /// Gets addresses as they are.
    Bus(Arc<Bus>),
}

// === impl Range ===

impl Range {
    /// One address past the end, unless the window is empty or wraps around.
    fn end(self) -> Option<u64> {
        self.base.checked_add(self.len).filter(|_| self.len > 0)
    }

    /// Whether the other window lies in this one as a whole.
    pub fn contains(self, other: Self) -> bool {
        match (self.end(), other.end()) {
            (Some(end), Some(other_end)) => self.base <= other.base && other_end <= end,
            _ => false,
        }
    }

    /// Whether the windows have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        match (self.end(), other.end()) {
            (Some(end), Some(other_end)) => self.base < other_end && other.base < end,
            _ => false,
        }
    }

    /// This window, as much farther up; it must not wrap around.
    #[must_use]
    pub fn moved(self, by: u64) -> Self {
        Self {
            base: self.base.saturating_add(by),
            len: self.len,
        }
    }

    /// The offset of an access that lies in this window as a whole.
    fn offset_of(self, addr: u64, len: usize) -> Option<u64> {
        let offset = addr.checked_sub(self.base)?;
        let end = offset.checked_add(u64::try_from(len).ok()?)?;
        (end <= self.len).then_some(offset)
    }
}

// === impl Bus ===

impl Bus {
    /// A bus without devices.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a device on the bus.
    ///
    /// # Errors
    /// When the window is no window or another device has a part of it.
    pub fn insert(&self, range: Range, device: Arc<Mutex<dyn BusDevice>>) -> Result<(), BusError> {
        self.put(range, Target::Device(device))
    }

    /// Lets another bus answer in a window, at the same addresses. It must not lead back here.
    ///
    /// # Errors
    /// When the window is no window or another device has a part of it.
    pub fn bridge(&self, range: Range, bus: Arc<Self>) -> Result<(), BusError> {
        self.put(range, Target::Bus(bus))
    }

    /// Takes what has exactly this window off the bus. An access that has found it already still reaches it.
    pub fn remove(&self, range: Range) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.range != range);
    }

    fn put(&self, range: Range, target: Target) -> Result<(), BusError> {
        let end = range.end().ok_or(BusError::BadRange(range))?;
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let at = entries.partition_point(|entry| entry.range.base < range.base);
        if let Some(next) = entries.get(at).filter(|next| next.range.base < end) {
            return Err(BusError::Overlap(range, next.range));
        }
        if let Some(previous) = at.checked_sub(1).map(|before| &entries[before])
            && range.base - previous.range.base < previous.range.len
        {
            return Err(BusError::Overlap(range, previous.range));
        }
        entries.insert(at, Entry { range, target });
        Ok(())
    }

    /// A vCPU reads.
    pub fn read(&self, addr: u64, data: &mut [u8]) {
        match self.find(addr, data.len()) {
            Some((Target::Device(device), offset)) => {
                device
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .read(offset, data);
            }
            Some((Target::Bus(bus), _)) => bus.read(addr, data),
            None => data.fill(0xff),
        }
    }

    /// A vCPU writes.
    pub fn write(&self, addr: u64, data: &[u8]) {
        match self.find(addr, data.len()) {
            Some((Target::Device(device), offset)) => {
                device
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .write(offset, data);
            }
            Some((Target::Bus(bus), _)) => bus.write(addr, data),
            None => {}
        }
    }

    /// How many accesses hit no device, or only a part of one.
    pub fn bad_accesses(&self) -> u64 {
        self.bad_accesses.load(Ordering::Relaxed)
    }

    fn find(&self, addr: u64, len: usize) -> Option<(Target, u64)> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let at = entries.partition_point(|entry| entry.range.base <= addr);
        let found = at.checked_sub(1).and_then(|before| {
            let entry = &entries[before];
            Some((entry.target.clone(), entry.range.offset_of(addr, len)?))
        });
        if found.is_none() {
            self.bad_accesses.fetch_add(1, Ordering::Relaxed);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Remembers what reached it.
    #[derive(Default)]
    struct Probe {
        reads: Vec<(u64, usize)>,
        writes: Vec<(u64, Vec<u8>)>,
    }

    impl BusDevice for Probe {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            self.reads.push((offset, data.len()));
            data.fill(0x5a);
        }

        fn write(&mut self, offset: u64, data: &[u8]) {
            self.writes.push((offset, data.to_vec()));
        }
    }

    fn bus_with_probe(base: u64, len: u64) -> (Bus, Arc<Mutex<Probe>>) {
        let probe = Arc::new(Mutex::new(Probe::default()));
        let bus = Bus::new();
        bus.insert(Range { base, len }, probe.clone()).unwrap();
        (bus, probe)
    }

    #[test]
    fn a_device_sees_offsets_into_its_own_window() {
        let (bus, probe) = bus_with_probe(0x1000, 0x100);
        let mut data = [0; 4];
        bus.read(0x10fc, &mut data);
        bus.write(0x1000, &[1, 2]);
        assert_eq!(data, [0x5a; 4]);
        assert_eq!(probe.lock().unwrap().reads, [(0xfc, 4)]);
        assert_eq!(probe.lock().unwrap().writes, [(0, vec![1, 2])]);
        assert_eq!(bus.bad_accesses(), 0);
    }

    #[test]
    fn a_miss_reads_all_ones_and_is_counted() {
        let (bus, _probe) = bus_with_probe(0x1000, 0x100);
        let mut data = [0; 8];
        bus.read(0xfff, &mut data);
        bus.write(0x1100, &[1]);
        assert_eq!(data, [0xff; 8]);
        assert_eq!(bus.bad_accesses(), 2);
    }

    #[test]
    fn an_access_across_a_device_s_end_does_not_reach_it() {
        let (bus, probe) = bus_with_probe(0x1000, 0x100);
        let mut data = [0; 8];
        bus.read(0x10fc, &mut data);
        bus.write(0x10ff, &[1, 2]);
        assert_eq!(data, [0xff; 8]);
        assert!(probe.lock().unwrap().reads.is_empty() && probe.lock().unwrap().writes.is_empty());
        assert_eq!(bus.bad_accesses(), 2);
    }

    #[test]
    fn a_device_that_moves_answers_only_where_it_is() {
        let (bus, probe) = bus_with_probe(0x1000, 0x100);
        bus.remove(Range {
            base: 0x1000,
            len: 0x10,
        });
        bus.write(0x1000, &[1]);
        bus.remove(Range {
            base: 0x1000,
            len: 0x100,
        });
        let there = Range {
            base: 0x8000,
            len: 0x100,
        };
        bus.insert(there, probe.clone()).unwrap();
        bus.write(0x1000, &[2]);
        bus.write(0x8010, &[3]);
        assert_eq!(probe.lock().unwrap().writes, [(0, vec![1]), (0x10, vec![3])]);
    }

    #[test]
    fn a_window_can_lead_to_another_bus() {
        let (child, probe) = bus_with_probe(0x4000_1000, 0x100);
        let (child, bus) = (Arc::new(child), Bus::new());
        let window = Range {
            base: 0x4000_0000,
            len: 0x1_0000,
        };
        bus.bridge(window, child.clone()).unwrap();
        let mut data = [0; 4];
        bus.read(0x4000_1010, &mut data);
        assert_eq!(
            (probe.lock().unwrap().reads[..].to_vec(), data),
            (vec![(0x10, 4)], [0x5a; 4])
        );
        bus.read(0x4000_2000, &mut data);
        assert_eq!((child.bad_accesses(), data), (1, [0xff; 4]));
    }

    #[test]
    fn overlapping_windows_are_refused() {
        let (bus, probe) = bus_with_probe(0x1000, 0x100);
        for (base, len) in [
            (0x1000, 0x100),
            (0x0, 0x1001),
            (0x10ff, 1),
            (0xfff, 0x1000),
            (0x1010, 1),
        ] {
            let refused = bus.insert(Range { base, len }, probe.clone());
            assert!(
                matches!(refused, Err(BusError::Overlap(..))),
                "{base:#x}+{len:#x}"
            );
        }
        assert_eq!(bus.insert(Range { base: 0x1100, len: 1 }, probe.clone()), Ok(()));
        assert_eq!(bus.insert(Range { base: 0xfff, len: 1 }, probe), Ok(()));
    }

    #[test]
    fn empty_and_wrapping_windows_are_refused() {
        let (bus, probe) = bus_with_probe(0x1000, 0x100);
        for (base, len) in [(0x2000, 0), (u64::MAX, 2)] {
            let refused = bus.insert(Range { base, len }, probe.clone());
            assert!(
                matches!(refused, Err(BusError::BadRange(_))),
                "{base:#x}+{len:#x}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_access_ends_in_the_device_or_in_the_count(addr: u64, near in 0xff0u64..0x1110, len in 0usize..9) {
            let (bus, probe) = bus_with_probe(0x1000, 0x100);
            let mut data = vec![0; len];
            bus.read(addr, &mut data);
            bus.read(near, &mut data);
            let seen = probe.lock().unwrap().reads.len() as u64;
            prop_assert_eq!(seen + bus.bad_accesses(), 2);
        }
    }
}
