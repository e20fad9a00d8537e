//! What other programs say: documents, calls, words of a command line.

use rvmm_control::frame::Lines;
use rvmm_control::session::Session;
use rvmm_spec::{MacAddress, MemorySize, TapName, wire};

/// A machine's description. What was taken is what is written again.
pub fn document(json: &[u8]) {
    if let Ok(spec) = wire::Document::parse(json)
        && let Ok(again) = wire::Document::from(&spec).to_json()
    {
        let parsed = wire::Document::parse(again.as_bytes()).expect("what we write, we read");
        assert_eq!(parsed, spec);
    }
}

/// Calls on the control socket, in pieces as they may come.
pub fn calls(bytes: &[u8]) {
    let mut session = Session::default();
    for piece in bytes.chunks(7) {
        session.feed(piece);
        while session.next_call().is_some() {}
        let pending = session.pending().len();
        session.written(pending / 2);
    }
}

/// Lines of any length, in pieces.
pub fn lines(bytes: &[u8]) {
    let mut lines = Lines::default();
    for piece in bytes.chunks(5) {
        lines.feed(piece);
        while let Ok(Some(line)) = lines.next_line() {
            assert!(!line.contains(&b'\n'));
        }
    }
}

/// Sizes, addresses and names.
pub fn words(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for word in text.split_whitespace() {
        word.parse::<MemorySize>().ok();
        if let Ok(mac) = word.parse::<MacAddress>() {
            assert_eq!(mac.to_string().parse::<MacAddress>().ok(), Some(mac));
        }
        word.parse::<TapName>().ok();
    }
}
