//! `console.log`: what the guest printed, on disk, bounded.
//!
//! The log is one more reader of the backlog, with one difference: the writer itself brings it up to date before it
//! would be overtaken, so that nothing is missing from it however busy the event loop is. A disk that refuses is
//! tried again later; what was lost meanwhile is noted in the log as for any viewer.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::backlog::{BACKLOG, Backlog};
use super::cursor::Cursor;

/// Largest `console.log` in bytes; then it becomes `console.log.old` and a new one begins.
pub const MAX_LOG: u64 = 8 << 20;

/// Bytes that may wait for the event loop before the writer logs them itself.
pub(super) const LOG_BATCH: usize = BACKLOG / 4;

#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    cursor: Cursor,
    tried: u64,
}

// === impl Log ===

impl Log {
    /// Begins a new log; an older one of this name is emptied.
    pub(super) fn create(path: &Path, limit: u64) -> io::Result<Self> {
        Ok(Self {
            file: new_file(path)?,
            path: path.to_owned(),
            size: 0,
            limit,
            cursor: Cursor::default(),
            tried: 0,
        })
    }

    /// Whether so much waits that it should be written now.
    pub(super) fn is_due(&self, backlog: &Backlog) -> bool {
        backlog.end().saturating_sub(self.tried) >= LOG_BATCH as u64
    }

    /// Writes what is new, as far as the disk takes it.
    pub(super) fn flush(&mut self, backlog: &Backlog) {
        self.tried = backlog.end();
        let mut piece = [0; 8 << 10];
        loop {
            let count = self.cursor.peek(backlog, &mut piece);
            let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else {
                return;
            };
            match self.append(bytes) {
                Ok(written) if written > 0 => self.cursor.advance(written),
                _ => return,
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size >= self.limit {
            let mut old = self.path.clone().into_os_string();
            old.push(".old");
            fs::rename(&self.path, old)?;
            self.file = new_file(&self.path)?;
            self.size = 0;
        }
        let written = self.file.write(bytes)?;
        self.size = self.size.saturating_add(written as u64);
        Ok(written)
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_never_outgrows_two_files_and_keeps_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let mut backlog = Backlog::new(BACKLOG);
        let mut log = Log::create(&path, 10).unwrap();
        for text in ["first-----", "second----", "third-----", "end"] {
            backlog.push(text.as_bytes());
            log.flush(&backlog);
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "end");
        assert_eq!(
            fs::read_to_string(folder.path().join("console.log.old")).unwrap(),
            "third-----"
        );
    }
}
