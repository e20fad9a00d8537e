//! Checks that a test takes out one at a time, to see that somebody notices (`tests/hostile/tests/teeth.rs`).
//!
//! That takes a build with the feature `blunt` and the check's name in the variable `RVM_BLUNT`. No optimized build can
//! have the feature, and without it [`Check::is_out`] is `false` at compile time, so that nothing is left of all this.

#[cfg(all(feature = "blunt", not(debug_assertions)))]
compile_error!("checks can be taken out in a test's build only, never in one that people run");

/// A check that can be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// A chain has no more descriptors than its queue.
    ChainLength,
    /// What is read and written lies on the disk.
    DiskEnd,
    /// Features are agreed upon only where they were offered.
    OfferedFeatures,
    /// A queue's message is one that the function has.
    ExistingMessage,
    /// A PCI function reaches memory only where it may.
    BusMaster,
    /// A packet of a guest's sockets is from that guest.
    PacketSource,
}

// === impl Check ===

impl Check {
    /// Whether this process goes without it.
    #[cfg(feature = "blunt")]
    pub(crate) fn is_out(self) -> bool {
        std::env::var("RVM_BLUNT").is_ok_and(|check| check == format!("{self:?}"))
    }

    /// Never: this build has all of them.
    #[cfg(not(feature = "blunt"))]
    pub(crate) const fn is_out(self) -> bool {
        false
    }
}
