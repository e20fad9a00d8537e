//! DNS names as they are sent: labels with their lengths (RFC 1035), not compressed.

/// Bytes of one label.
const LONGEST_LABEL: usize = 63;
/// Bytes of a whole name as it is sent.
const LONGEST_NAME: usize = 255;

/// One name; nothing where it is none.
pub(crate) fn encode(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if label.is_empty() || label.len() > LONGEST_LABEL || !label.bytes().all(good) {
            return None;
        }
        bytes.push(u8::try_from(label.len()).ok()?);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= LONGEST_NAME).then_some(bytes)
}

/// Names one after the other; the lease was checked, so that each is one.
pub(crate) fn encode_all(names: &[String]) -> Vec<u8> {
    names.iter().filter_map(|name| encode(name)).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_with_lengths() {
        assert_eq!(encode("a.bc").unwrap(), b"\x01a\x02bc\x00");
        assert_eq!(encode("a.bc."), encode("a.bc"));
        assert_eq!(
            encode_all(&["a".to_owned(), "b".to_owned()]),
            b"\x01a\x00\x01b\x00"
        );
    }

    #[test]
    fn what_is_no_name_is_not_sent() {
        for wrong in ["", ".", "a..b", "a b", "ä.de", &"a".repeat(64), &"a.".repeat(128)] {
            assert_eq!(encode(wrong), None, "{wrong}");
        }
    }
}
