//! What an image says of itself: its `os-release` file. The image may hold anything there.

use std::fs::File;
use std::io::Read;

/// More of `os-release` than this is not read; the real ones have some hundred bytes.
const MAX_RELEASE: u64 = 64 << 10;

/// The longest value that is told, in characters.
const MAX_VALUE: usize = 120;

/// An `os-release` file.
#[derive(Debug, Default)]
pub struct Release(String);

// === impl Release ===

impl Release {
    /// The image's own; an empty one where it has none.
    pub fn read() -> Self {
        let text = read_bounded("/etc/os-release").or_else(|| read_bounded("/usr/lib/os-release"));
        Self(text.unwrap_or_default())
    }

    /// A value, with nothing in it that would move a terminal's cursor.
    pub fn value(&self, key: &str) -> Option<String> {
        let mut lines = self.0.lines();
        let value = lines.find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?;
        let value = value.trim().trim_matches(['"', '\'']);
        let value: String = value
            .chars()
            .filter(|letter| !letter.is_control())
            .take(MAX_VALUE)
            .collect();
        (!value.is_empty()).then_some(value)
    }
}

fn read_bounded(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(MAX_RELEASE)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, key: &str) -> Option<String> {
        Release(text.to_owned()).value(key)
    }

    #[test]
    fn the_image_is_called_what_its_release_file_calls_it() {
        let release = "ID=alpine\nVERSION_ID=3.23\nPRETTY_NAME=\"Alpine Linux v3.23\"\n";
        assert_eq!(
            value(release, "PRETTY_NAME").as_deref(),
            Some("Alpine Linux v3.23")
        );
        assert_eq!(value(release, "ID").as_deref(), Some("alpine"));
        assert_eq!(value("PRETTY_NAME='x y'", "PRETTY_NAME").as_deref(), Some("x y"));
        assert_eq!(value(release, "VERSION"), None);
        assert_eq!(value("PRETTY_NAME=\"\"\n", "PRETTY_NAME"), None);
    }

    #[test]
    fn a_name_cannot_play_with_the_terminal_or_fill_it() {
        assert_eq!(
            value("NAME=\"\u{1b}[2Jhello\u{7}\"", "NAME").as_deref(),
            Some("[2Jhello")
        );
        let long = format!("NAME={}", "x".repeat(5000));
        assert_eq!(value(&long, "NAME").map(|name| name.len()), Some(MAX_VALUE));
    }
}
