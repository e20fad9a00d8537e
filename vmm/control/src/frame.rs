//! Lines out of a stream of bytes, none longer than [`MAX_LINE`], or than its reader says.

/// Longest line in bytes, without its line feed, that either side takes.
pub const MAX_LINE: usize = 64 << 10;

/// A line was longer than its reader takes; the connection is of no more use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a control message is longer than {MAX_LINE} bytes")]
pub struct LineTooLong;

/// Collects bytes until a line is whole. Each byte is looked at once, however small the pieces are that it comes in.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// What is before this has been taken.
    start: usize,
    /// Between `start` and this there is no line feed.
    searched: usize,
    longest: usize,
}

// === impl Lines ===

impl Default for Lines {
    fn default() -> Self {
        Self::up_to(MAX_LINE)
    }
}

impl Lines {
    /// From a peer whose lines may have this many bytes.
    pub fn up_to(longest: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            longest,
        }
    }

    /// Adds what came in.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > self.longest {
            self.forget_taken();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next whole line, without its line feed; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`LineTooLong`], once the peer has sent too much without a line feed.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineTooLong> {
        let unseen = &self.buffer[self.searched..];
        let Some(place) = unseen.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.buffer.len();
            self.forget_taken();
            return if self.buffer.len() > self.longest {
                Err(LineTooLong)
            } else {
                Ok(None)
            };
        };
        let end = self.searched + place;
        let line = &self.buffer[self.start..end];
        if line.len() > self.longest {
            return Err(LineTooLong);
        }
        let line = line.to_vec();
        self.start = end + 1;
        self.searched = self.start;
        Ok(Some(line))
    }

    fn forget_taken(&mut self) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        lines.feed(&vec![b'x'; MAX_LINE + 1]);
        assert_eq!(lines.next_line(), Err(LineTooLong));
    }

    #[test]
    fn a_line_of_the_longest_kind_is_taken_between_others() {
        let long = vec![b'x'; MAX_LINE];
        let mut lines = Lines::default();
        lines.feed(&[b"a\n", &long[..], b"\nb\nc"].concat());
        assert_eq!(lines.next_line(), Ok(Some(b"a".to_vec())));
        assert_eq!(lines.next_line(), Ok(Some(long)));
        assert_eq!(lines.next_line(), Ok(Some(b"b".to_vec())));
        assert_eq!(lines.next_line(), Ok(None));
        lines.feed(b"\n");
        assert_eq!(lines.next_line(), Ok(Some(b"c".to_vec())));
    }

    proptest! {
        #[test]
        fn however_a_stream_is_cut_the_lines_are_the_same(text in proptest::collection::vec("[a-z]{0,20}", 0..10), cut in 1usize..7) {
            let stream: Vec<u8> = text.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for piece in stream.chunks(cut) {
                lines.feed(piece);
                while let Some(line) = lines.next_line().unwrap() { got.push(String::from_utf8(line).unwrap()); }
            }
            prop_assert_eq!(got, text);
        }
    }
}
