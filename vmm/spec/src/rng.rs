//! The entropy device: every machine has one; how much it gives may be limited.

use crate::error::SpecError;
use crate::limits::MIN_RNG_BANDWIDTH;
use crate::size::MemorySize;

/// The entropy device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rng {
    /// Most bytes a second, if they are limited.
    pub bandwidth: Option<MemorySize>,
}

// === impl Rng ===

impl Rng {
    pub(crate) fn check(self) -> Result<(), SpecError> {
        match self.bandwidth {
            Some(bandwidth) if bandwidth.bytes() < MIN_RNG_BANDWIDTH => {
                Err(SpecError::RngBandwidth(bandwidth))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Boot, Spec};

    #[test]
    fn a_limit_lets_a_whole_request_through_in_a_second() {
        let with = |bytes| {
            let bandwidth = Some(MemorySize::from_bytes(bytes));
            Spec::builder(Boot::new("Image")).rng(Rng { bandwidth }).build()
        };
        assert_eq!(
            with(1024).unwrap().rng().bandwidth,
            Some(MemorySize::from_bytes(1024))
        );
        let error = with(1023).unwrap_err().to_string();
        assert_eq!(
            error,
            "an entropy device with 1023 bytes a second is not possible: at least 1 KiB"
        );
    }
}
