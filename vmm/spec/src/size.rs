//! Memory sizes as people write them: `256M`, `256Mi`, `1G`, plain bytes.

use std::fmt;
use std::str::FromStr;

/// An amount of memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

/// The text is not a size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not a size; write bytes or a number with K, M or G, such as 256M")]
pub struct ParseSizeError(String);

// === impl MemorySize ===

impl MemorySize {
    /// This many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// This many MiB.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for MemorySize {
    type Err = ParseSizeError;

    /// Units are binary: on a command line `M` and `Mi` both mean MiB, as for QEMU. Kubernetes quantities, where
    /// `M` is decimal, are read by the handler.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let err = || ParseSizeError(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit {
            "" | "B" => 0,
            "K" | "Ki" | "KiB" => 10,
            "M" | "Mi" | "MiB" => 20,
            "G" | "Gi" | "GiB" => 30,
            _ => return Err(err()),
        };
        let number: u64 = number.parse().map_err(|_| err())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(err)
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{} {unit}", self.0 >> shift);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("256M", 256 << 20),
            ("1Gi", 1 << 30),
            ("4096", 4096),
            ("64KiB", 64 << 10),
        ] {
            assert_eq!(text.parse(), Ok(MemorySize::from_bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn nonsense_and_overflow_are_refused() {
        for text in ["", "M", "-1", "1.5G", "12 M", "1T", "99999999999G", "0x10"] {
            assert!(text.parse::<MemorySize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_print_in_the_largest_whole_unit() {
        assert_eq!(MemorySize::from_mib(256).to_string(), "256 MiB");
        assert_eq!(MemorySize::from_mib(2048).to_string(), "2 GiB");
        assert_eq!(MemorySize::from_bytes(1025).to_string(), "1025 bytes");
    }
}
