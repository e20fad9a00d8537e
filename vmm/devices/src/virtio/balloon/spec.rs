//! Layout and bits of the memory balloon (5.5).

/// Queues as they are numbered when all features are agreed upon. A feature that is not leaves no gap: those behind it
/// move up (5.5.2). A driver that leaves the gap, as earlier versions of the specification had it, is understood too.
pub(super) const QUEUE_SIZES: [u16; 5] = [128; 5];

/// The device's own queue for statistics.
pub(super) const FEATURE_STATS: u64 = 1 << 1;
/// The driver may take pages back without asking when its memory is short.
pub(super) const FEATURE_DEFLATE_ON_OOM: u64 = 1 << 2;
/// The driver tells of pages that it does not use at the moment.
pub(super) const FEATURE_REPORTING: u64 = 1 << 5;

/// `num_pages` and `actual`: what the device wants, what the driver has given.
pub(super) const CONFIG_LEN: usize = 8;
/// Where `actual` is.
pub(super) const ACTUAL: u64 = 4;

/// The unit of the balloon, whatever the guest's pages are (5.5.6).
pub(super) const PAGE_SHIFT: u32 = 12;
/// Bytes of a page's number in a request.
pub(super) const PFN_LEN: usize = 4;
/// Bytes of one statistic: a tag of two bytes, a value of eight.
pub(super) const STAT_LEN: usize = 10;
/// How many tags there are (5.5.6.3).
pub(super) const STAT_TAGS: usize = 16;

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Pages given to the device.
    Inflate,
    /// Pages taken back from it.
    Deflate,
    /// The driver's statistics.
    Stats,
    /// Pages that the driver does not use.
    Reporting,
    /// None, with these features.
    Nothing,
}

/// What the queue with this index is for, given the features agreed upon.
pub(super) fn role(index: usize, acked: u64) -> Role {
    let stats = acked & FEATURE_STATS != 0;
    let reporting = acked & FEATURE_REPORTING != 0;
    match (index, stats, reporting) {
        (0, ..) => Role::Inflate,
        (1, ..) => Role::Deflate,
        (2, true, _) => Role::Stats,
        (2, false, true) | (3, true, true) | (4, _, true) => Role::Reporting,
        _ => Role::Nothing,
    }
}
