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
    /// It is over. Nothing comes after this.
    Ended(Outcome),
}

/// Told of news, from any thread. Must not wait, and must not end the guest from there.
pub type OnNews = Arc<dyn Fn(News) + Send + Sync>;
