//! Lines out of a stream of bytes, none longer than [`MAX_LINE`].

/// Longest line in bytes, without its line feed, that either side takes.
pub const MAX_LINE: usize = 64 << 10;

/// A line was longer than [`MAX_LINE`]; the connection is of no more use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a control message is longer than {MAX_LINE} bytes")]
pub struct LineTooLong;

/// Collects bytes until a line is whole.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
}

// === impl Lines ===

impl Lines {
    /// Adds what came in.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next whole line, without its line feed; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`LineTooLong`], once the peer has sent too much without a line feed.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineTooLong> {
        let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') else {
            return if self.buffer.len() > MAX_LINE {
                Err(LineTooLong)
            } else {
                Ok(None)
            };
        };
        if end > MAX_LINE {
            return Err(LineTooLong);
        }
        let rest = self.buffer.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.pop();
        Ok(Some(line))
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
