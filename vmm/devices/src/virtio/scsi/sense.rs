//! What a unit says besides "good": sense data in its fixed form (SPC-4, 4.5.3).

/// Bytes of the fixed form.
pub(super) const LEN: usize = 18;

/// Sense key, additional code, its qualifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sense(u8, u8, u8);

const ILLEGAL_REQUEST: u8 = 0x5;
const UNIT_ATTENTION: u8 = 0x6;
const DATA_PROTECT: u8 = 0x7;
const MEDIUM_ERROR: u8 = 0x3;

// === impl Sense ===

impl Sense {
    /// Nothing to say.
    pub(super) const NONE: Self = Self(0, 0, 0);
    /// The host could not read.
    pub(super) const READ_ERROR: Self = Self(MEDIUM_ERROR, 0x11, 0x00);
    /// The host could not write, or flush.
    pub(super) const WRITE_ERROR: Self = Self(MEDIUM_ERROR, 0x0c, 0x00);
    pub(super) const PARAMETER_LENGTH: Self = Self(ILLEGAL_REQUEST, 0x1a, 0x00);
    pub(super) const INVALID_OPCODE: Self = Self(ILLEGAL_REQUEST, 0x20, 0x00);
    pub(super) const OUT_OF_RANGE: Self = Self(ILLEGAL_REQUEST, 0x21, 0x00);
    pub(super) const INVALID_FIELD: Self = Self(ILLEGAL_REQUEST, 0x24, 0x00);
    pub(super) const NO_SUCH_UNIT: Self = Self(ILLEGAL_REQUEST, 0x25, 0x00);
    pub(super) const INVALID_PARAMETER: Self = Self(ILLEGAL_REQUEST, 0x26, 0x00);
    pub(super) const NOTHING_SAVED: Self = Self(ILLEGAL_REQUEST, 0x39, 0x00);
    pub(super) const WRITE_PROTECTED: Self = Self(DATA_PROTECT, 0x27, 0x00);
    /// The host has no space left for what is written.
    pub(super) const NO_SPACE: Self = Self(DATA_PROTECT, 0x27, 0x07);
    /// Power on, or reset.
    pub(super) const RESET: Self = Self(UNIT_ATTENTION, 0x29, 0x00);
    /// Units came or went.
    pub(super) const UNITS_CHANGED: Self = Self(UNIT_ATTENTION, 0x3f, 0x0e);

    pub(super) fn bytes(self) -> [u8; LEN] {
        let Self(key, code, qualifier) = self;
        let mut bytes = [0; LEN];
        // Of the current command; ten more bytes follow the first eight.
        (bytes[0], bytes[2], bytes[7]) = (0x70, key, 10);
        (bytes[12], bytes[13]) = (code, qualifier);
        bytes
    }
}
