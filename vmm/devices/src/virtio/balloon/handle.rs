//! The host's side of a balloon: what it wants, what it has got, what the guest says of its memory.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::spec::{PAGE_SHIFT, STAT_TAGS};

/// Names of the statistics, by their tag.
const STAT_NAMES: [&str; STAT_TAGS] = [
    "swap-in",
    "swap-out",
    "major-faults",
    "minor-faults",
    "free-memory",
    "total-memory",
    "available-memory",
    "disk-caches",
    "hugetlb-allocations",
    "hugetlb-failures",
    "oom-kills",
    "alloc-stalls",
    "async-scans",
    "direct-scans",
    "async-reclaims",
    "direct-reclaims",
];

/// What others may ask of a balloon, from any thread. Whoever changes the target then has the transport tell the driver
/// (`config_changed`); whoever wants newer statistics then has queue [`super::Balloon::STATS`] run.
#[derive(Debug, Clone, Default)]
pub struct BalloonHandle(Arc<Shared>);

#[derive(Debug, Default)]
pub(super) struct Shared {
    target: AtomicU32,
    actual: AtomicU32,
    released: AtomicU64,
    refresh: AtomicBool,
    stats: Mutex<BalloonStats>,
}

/// What a guest last said of its memory. All of it is the guest's word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BalloonStats([Option<u64>; STAT_TAGS]);

// === impl BalloonHandle ===

impl BalloonHandle {
    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// How many bytes the guest shall give up; what is no whole page is left to it.
    pub fn set_target(&self, bytes: u64) {
        let pages = u32::try_from(bytes >> PAGE_SHIFT).unwrap_or(u32::MAX);
        self.0.target.store(pages, Ordering::SeqCst);
    }

    /// How many bytes the guest shall give up.
    pub fn target(&self) -> u64 {
        u64::from(self.0.target.load(Ordering::SeqCst)) << PAGE_SHIFT
    }

    /// How many bytes the guest says it has given up.
    pub fn actual(&self) -> u64 {
        u64::from(self.0.actual.load(Ordering::SeqCst)) << PAGE_SHIFT
    }

    /// How many bytes have gone back to the host since the machine started, by the balloon and by reports of free
    /// pages; a page that went back twice counts twice.
    pub fn released(&self) -> u64 {
        self.0.released.load(Ordering::SeqCst)
    }

    /// Has the guest send newer statistics when the queue runs next.
    pub fn refresh_stats(&self) {
        self.0.refresh.store(true, Ordering::SeqCst);
    }

    /// The guest's statistics as they came last.
    pub fn stats(&self) -> BalloonStats {
        *self.0.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Shared ===

impl Shared {
    pub(super) fn config(&self) -> [u32; 2] {
        [&self.target, &self.actual].map(|value| value.load(Ordering::SeqCst))
    }

    pub(super) fn set_actual(&self, pages: u32) {
        self.actual.store(pages, Ordering::SeqCst);
    }

    pub(super) fn add_released(&self, bytes: u64) {
        self.released.fetch_add(bytes, Ordering::SeqCst);
    }

    pub(super) fn wants_stats(&self) -> bool {
        self.refresh.swap(false, Ordering::SeqCst)
    }

    pub(super) fn set_stats(&self, stats: BalloonStats) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    /// The driver is gone, and all that it said with it. What the host wants stays.
    pub(super) fn reset(&self) {
        self.set_actual(0);
        self.set_stats(BalloonStats::default());
    }
}

// === impl BalloonStats ===

impl BalloonStats {
    /// Name and value of what the guest told.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let named = STAT_NAMES.into_iter().zip(self.0);
        named.filter_map(|(name, value)| value.map(|value| (name, value)))
    }

    /// Notes one value; a tag that is not known is left out, and of two values the later one counts.
    pub(super) fn note(&mut self, tag: u16, value: u64) {
        if let Some(place) = self.0.get_mut(usize::from(tag)) {
            *place = Some(value);
        }
    }
}
