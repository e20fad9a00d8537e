//! What a guest says of its life, whichever backend runs it.

use std::sync::Arc;

use rvmm_spec::Outcome;

/// Something that happened to one boot of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Its vCPUs run: for the first time, or after a pause.
    Running,
    /// Its vCPUs stand still.
    Paused,
    /// It has not fed its watchdog in time; it goes on until something is done to it.
    Watchdog,
    /// A disk's request failed on the host, and waits; the guest is to be paused for that, or is already.
    DiskFailed(DiskError),
    /// It is over. Nothing comes after this.
    Ended(Outcome),
}

/// Which disk failed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskError {
    /// The disk's name.
    pub disk: String,
    /// The host's reason.
    pub why: String,
}

/// Told of news, from any thread. Must not wait, and must not end the guest from there.
pub type OnNews = Arc<dyn Fn(News) + Send + Sync>;
