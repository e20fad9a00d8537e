//! What one vCPU's exits are counted in: each thread has its own, so that counting costs it no shared cache line.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// A vCPU's exits to us, by kind.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counters {
    /// Device registers read.
    pub mmio_read: Counter,
    /// Device registers written.
    pub mmio_write: Counter,
    /// SBI calls that KVM left to us.
    pub sbi: Counter,
    /// Of these, the ones that were answered "not supported".
    pub sbi_unknown: Counter,
    /// Random bits for the `seed` CSR.
    pub seed: Counter,
    /// Left the guest because of a signal.
    pub interrupted: Counter,
    /// Exits that nobody knows.
    pub unknown: Counter,
}

/// Counts up. Only one thread does; any may look.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

// === impl Counter ===

impl Counter {
    /// One more; how many there were before.
    pub fn add(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Counters ===

impl Counters {
    /// Adds these to the sums of all, under their documented names.
    pub fn add_to(&self, sums: &mut BTreeMap<String, u64>) {
        for (name, counter) in [
            ("exits.mmio-read", &self.mmio_read),
            ("exits.mmio-write", &self.mmio_write),
            ("exits.sbi", &self.sbi),
            ("exits.sbi-unknown", &self.sbi_unknown),
            ("exits.seed", &self.seed),
            ("exits.interrupted", &self.interrupted),
            ("exits.unknown", &self.unknown),
        ] {
            let sum = sums.entry(name.to_owned()).or_default();
            *sum = sum.saturating_add(counter.get());
        }
    }
}
