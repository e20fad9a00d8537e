//! The last bytes that a guest printed, addressed by how many it printed before them.
//!
//! ```text
//!   0 ........ start ═══════════════════════ end        offsets count every byte ever printed
//!   forgotten        kept, at most BACKLOG
//!                       ▲ cursor of a reader: a plain number, no copy of anything
//! ```
//!
//! A reader that is too slow is overtaken: its cursor falls below `start`, and [`Backlog::read`] tells how much it
//! lost. So any number of readers costs nothing, and none of them can hold up the guest.

use std::collections::VecDeque;

/// Most bytes that are kept for viewers that come late or read slowly.
pub const BACKLOG: usize = 256 << 10;

/// A bounded memory of a stream.
#[derive(Debug)]
pub struct Backlog {
    kept: VecDeque<u8>,
    limit: usize,
    end: u64,
}

/// What [`Backlog::read`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// Bytes between the cursor and the oldest that is kept: lost for this reader.
    pub skipped: u64,
    /// Bytes copied, starting `skipped` bytes after the cursor.
    pub count: usize,
}

// === impl Backlog ===

impl Backlog {
    /// An empty stream of which the last `limit` bytes are kept. Memory is taken as the stream grows.
    pub fn new(limit: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            limit,
            end: 0,
        }
    }

    /// Appends bytes, forgetting the oldest.
    pub fn push(&mut self, bytes: &[u8]) {
        self.end = self.end.wrapping_add(bytes.len() as u64);
        let fresh = bytes
            .get(bytes.len().saturating_sub(self.limit)..)
            .unwrap_or_default();
        let forgotten = (self.kept.len() + fresh.len()).saturating_sub(self.limit);
        self.kept.drain(..forgotten);
        self.kept.extend(fresh);
    }

    /// Offset of the oldest byte that is kept.
    pub fn start(&self) -> u64 {
        self.end.wrapping_sub(self.kept.len() as u64)
    }

    /// Offset of the byte that will come next.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Copies what stands at `cursor`, or at the oldest byte for a cursor that was overtaken.
    pub fn read(&self, cursor: u64, out: &mut [u8]) -> Read {
        let skipped = self.start().saturating_sub(cursor);
        let from = usize::try_from(cursor.saturating_sub(self.start())).unwrap_or(usize::MAX);
        let (front, back) = self.kept.as_slices();
        let first = front.get(from..).unwrap_or_default();
        let second = back.get(from.saturating_sub(front.len())..).unwrap_or_default();
        let mut count = 0;
        for part in [first, second] {
            let room = out.get_mut(count..).unwrap_or_default();
            let length = part.len().min(room.len());
            if let (Some(to), Some(from)) = (room.get_mut(..length), part.get(..length)) {
                to.copy_from_slice(from);
            }
            count += length;
        }
        Read { skipped, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reader_that_was_overtaken_learns_how_much_it_lost() {
        let mut backlog = Backlog::new(4);
        backlog.push(b"abcdefghij");
        let mut out = [0; 8];
        assert_eq!(backlog.read(1, &mut out), Read { skipped: 5, count: 4 });
        assert_eq!(&out[..4], b"ghij");
    }

    #[test]
    fn a_cursor_beyond_the_end_reads_nothing() {
        let mut backlog = Backlog::new(4);
        backlog.push(b"ab");
        assert_eq!(backlog.read(9, &mut [0; 8]), Read { skipped: 0, count: 0 });
    }

    proptest! {
        #[test]
        fn every_cursor_reads_what_the_stream_had_there(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            limit in 1usize..64, cursor in 0u64..800, room in 1usize..80,
        ) {
            let mut backlog = Backlog::new(limit);
            for piece in &pieces { backlog.push(piece); }
            let whole = pieces.concat();
            prop_assert_eq!(backlog.end(), whole.len() as u64);
            prop_assert_eq!(backlog.start(), whole.len().saturating_sub(limit) as u64);
            let mut out = vec![0; room];
            let got = backlog.read(cursor, &mut out);
            let at = usize::try_from(cursor + got.skipped).unwrap();
            let rest = whole.get(at..).unwrap_or_default();
            prop_assert_eq!(got.skipped, backlog.start().saturating_sub(cursor));
            prop_assert_eq!(&out[..got.count], &rest[..rest.len().min(room)]);
        }
    }
}
