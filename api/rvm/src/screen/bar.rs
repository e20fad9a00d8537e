//! How far something is: a line of a terminal that is written over, and gone in the end, whatever that is. Elsewhere there are plain lines.

use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{printable, progress};

/// How often it moves while nothing is heard.
const TICK: Duration = Duration::from_millis(120);
/// Where nobody knows how far it is.
const WAITING: &str = "{spinner} {wide_msg}";
/// Where that is known, in bytes.
const MOVING: &str = "{spinner} {msg} [{bar:24}] {binary_bytes} of {binary_total_bytes}";

/// A line that is written over. Dropping it takes it away.
pub struct Bar {
    line: ProgressBar,
    waiting: ProgressStyle,
    moving: ProgressStyle,
}

// === impl Bar ===

impl Bar {
    /// One that shows nothing yet.
    pub fn new() -> Result<Self> {
        let waiting = ProgressStyle::with_template(WAITING)?;
        let moving = ProgressStyle::with_template(MOVING)?.progress_chars("=> ");
        let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if !line.is_hidden() {
            line.set_style(waiting.clone());
            line.enable_steady_tick(TICK);
        }
        Ok(Self {
            line,
            waiting,
            moving,
        })
    }

    /// What is going on. Elsewhere than on a terminal that is a line of its own.
    pub fn say(&self, text: &str) {
        if self.line.is_hidden() {
            return progress(text);
        }
        self.line.set_style(self.waiting.clone());
        self.line.set_message(printable(text));
    }

    /// So many bytes of what is named, of so many. On a terminal alone.
    pub fn show(&self, what: &str, have: u64, total: u64) {
        self.line.set_style(self.moving.clone());
        self.line.set_message(printable(what));
        self.line.set_length(total);
        self.line.set_position(have);
    }

    /// Whether it is seen.
    pub fn is_shown(&self) -> bool {
        !self.line.is_hidden()
    }

    /// Says something that stays, above it.
    pub fn keep(&self, text: &str) {
        self.line.suspend(|| progress(text));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.line.finish_and_clear();
    }
}
