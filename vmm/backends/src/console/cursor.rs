//! Where a reader of the backlog stands, and the notice that it reads in place of what it lost.

use super::backlog::Backlog;

/// A reader's place in the stream.
#[derive(Debug, Default)]
pub struct Cursor {
    at: u64,
    /// Still to be shown before the byte at `at`; empty but for the moment after a loss.
    notice: Vec<u8>,
}

// === impl Cursor ===

impl Cursor {
    /// At the oldest byte that is kept: the reader gets the replay first, and nothing counts as lost.
    pub fn at_start(backlog: &Backlog) -> Self {
        Self {
            at: backlog.start(),
            notice: Vec::new(),
        }
    }

    /// Copies what comes next for this reader. The cursor stays until [`Cursor::advance`].
    pub fn peek(&mut self, backlog: &Backlog, out: &mut [u8]) -> usize {
        if self.notice.is_empty() {
            let read = backlog.read(self.at, out);
            if read.skipped == 0 {
                return read.count;
            }
            self.at = self.at.saturating_add(read.skipped);
            self.notice = format!("\r\n[rvm: {} bytes skipped]\r\n", read.skipped).into_bytes();
        }
        let count = self.notice.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..count), self.notice.get(..count)) {
            to.copy_from_slice(from);
        }
        count
    }

    /// Goes on by this many bytes of what [`Cursor::peek`] gave.
    pub fn advance(&mut self, count: usize) {
        if self.notice.is_empty() {
            self.at = self.at.saturating_add(count as u64);
        } else {
            self.notice.drain(..count.min(self.notice.len()));
        }
    }

    /// Whether everything before `end` was read.
    pub fn has_reached(&self, end: u64) -> bool {
        self.notice.is_empty() && self.at >= end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads on in small pieces until nothing more comes.
    fn read_all(cursor: &mut Cursor, backlog: &Backlog) -> String {
        let mut text = Vec::new();
        let mut piece = [0; 3];
        loop {
            let count = cursor.peek(backlog, &mut piece);
            if count == 0 {
                return String::from_utf8(text).unwrap();
            }
            text.extend_from_slice(&piece[..count]);
            cursor.advance(count);
        }
    }

    #[test]
    fn an_overtaken_reader_is_told_once_and_goes_on_at_the_oldest_byte() {
        let mut backlog = Backlog::new(4);
        let mut cursor = Cursor::at_start(&backlog);
        backlog.push(b"abcdefg");
        assert_eq!(
            read_all(&mut cursor, &backlog),
            "\r\n[rvm: 3 bytes skipped]\r\ndefg"
        );
        backlog.push(b"hi");
        assert_eq!(read_all(&mut cursor, &backlog), "hi");
    }

    #[test]
    fn a_late_reader_starts_with_the_replay_and_no_notice() {
        let mut backlog = Backlog::new(4);
        backlog.push(b"abcdefg");
        let mut cursor = Cursor::at_start(&backlog);
        assert_eq!(read_all(&mut cursor, &backlog), "defg");
        assert!(cursor.has_reached(backlog.end()));
    }
}
