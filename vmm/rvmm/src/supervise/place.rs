//! This machine's place on the host: a run directory that is ours for as long as we live.

use anyhow::Context;
use rvmm_control::{Ending, RunDir, RunLock};
use rvmm_qemu::SCRATCH;
use rvmm_spec::{Spec, wire};

/// A run directory, claimed. What an earlier machine left there is gone from the first moment.
#[derive(Debug)]
pub struct Place {
    run: RunDir,
    lock: RunLock,
}

// === impl Place ===

impl Place {
    /// Claims it.
    ///
    /// # Errors
    /// Another rvmm lives there, or the folder cannot be used.
    pub fn claim(run: RunDir) -> anyhow::Result<Self> {
        let lock = run.claim()?;
        let place = Self { run, lock };
        place.sweep();
        Ok(place)
    }

    /// Takes away what the start of an rvmm left that was killed in its midst.
    fn sweep(&self) {
        let entries = std::fs::read_dir(self.run.path()).into_iter().flatten().flatten();
        let left = entries.filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(SCRATCH.as_bytes())
        });
        // What cannot be removed is in nobody's way.
        left.for_each(|entry| drop(std::fs::remove_dir_all(entry.path())));
    }

    /// The paths in it.
    pub fn run(&self) -> &RunDir {
        &self.run
    }

    /// Leaves the machine's description there, unless it came from there.
    pub fn describe(&self, spec: &Spec) -> anyhow::Result<()> {
        let path = self.run.spec();
        let json = wire::Document::from(spec).to_json()?;
        if std::fs::read_to_string(&path).is_ok_and(|there| there == json) {
            return Ok(());
        }
        std::fs::write(&path, json).with_context(|| format!("'{}' cannot be written", path.display()))
    }

    /// Leaves how it ended there, and takes the sockets away.
    pub fn close(&self, ending: &Ending) {
        if let Err(error) = self.run.write_ending(&self.lock, ending) {
            tracing::error!(%error, "how the machine ended cannot be written down");
        }
        self.run.remove_sockets(&self.lock);
    }
}
