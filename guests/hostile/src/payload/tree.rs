//! The one thing that is read out of the device tree: the command line.

use super::bare::{load8, load32};

const NAME: &[u8] = b"bootargs\0";
const PROPERTY: u32 = 3;
const MAX_WORDS: u64 = 1 << 16;
/// The longest command line that is looked at.
pub(super) const MAX_LINE: usize = 256;

fn word(at: u64) -> u64 {
    load32(at).swap_bytes() >> 32
}

/// Copies the command line into `line`; returns its length, zero if there is none.
pub(super) fn command_line(tree: u64, line: &mut [u8; MAX_LINE]) -> usize {
    let (structure, names) = (tree + word(tree + 8), tree + word(tree + 12));
    let found = (0..MAX_WORDS).map(|index| structure + 4 * index).find(|&at| {
        word(at) == u64::from(PROPERTY)
            && (0..)
                .zip(NAME)
                .all(|(place, &byte)| load8(names + word(at + 8) + place) == u64::from(byte))
    });
    let Some(property) = found else { return 0 };
    let len = usize::try_from(word(property + 4))
        .unwrap_or(0)
        .min(MAX_LINE)
        .saturating_sub(1);
    for (place, byte) in (0..).zip(&mut line[..len]) {
        *byte = load8(property + 12 + place).to_le_bytes()[0];
    }
    len
}
