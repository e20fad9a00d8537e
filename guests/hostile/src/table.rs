//! What a case is, and the macro that turns lines into cases.

use core::fmt;

/// What runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Our own devices, on KVM.
    Kvm,
    /// QEMU's.
    Tcg,
}

/// What is misused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The disk that can be written.
    Blk,
    /// The disk that can only be read.
    ReadOnly,
    /// The network interface.
    Net,
    /// The virtio console.
    Console,
    /// The entropy device.
    Rng,
    /// The serial port.
    Uart,
    /// The clock.
    Rtc,
    /// The register that switches the machine off.
    Syscon,
    /// The interrupt controllers.
    Interrupts,
    /// Addresses where nothing is, or should not be reached.
    Memory,
    /// The firmware and the CPU.
    Cpu,
}

/// What must come of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It is carried out, and does no harm.
    Answered,
    /// It is ignored, answered with an error, or a fault in the guest.
    Refused,
    /// The device stands still until it is reset.
    NeedsReset,
    /// Any of these: it is a race.
    Any,
    /// rvmm says why in one line, and ends with status 1.
    Fault,
    /// The machine is off; rvmm ends with status 0.
    Off,
    /// The machine is reset.
    Reset,
    /// Off or reset: it is a race.
    OffOrReset,
    /// The guest is busy for ever; rvmm still ends when it is told to.
    Spins,
}

/// One way to misbehave.
pub struct Case {
    /// Its name: the letter of its category, and what it is.
    pub id: &'static str,
    /// What is misused.
    pub device: Device,
    /// What is done.
    pub text: &'static str,
    /// What our devices must make of it.
    pub kvm: Expected,
    /// What QEMU's make of it.
    pub tcg: Expected,
    /// The doing.
    #[cfg(feature = "payload")]
    pub act: fn() -> crate::payload::Verdict,
}

/// A table of cases: `"id", Device, "what is done", UnderKvm UnderTcg => how;`
macro_rules! cases {
    ($($id:literal, $device:ident, $text:literal, $kvm:ident $tcg:ident => $act:expr;)*) => {
        /// The cases of this file.
        pub const CASES: &[$crate::Case] = &[$($crate::Case {
            id: $id,
            device: $crate::Device::$device,
            text: $text,
            kvm: $crate::Expected::$kvm,
            tcg: $crate::Expected::$tcg,
            #[cfg(feature = "payload")]
            act: $act,
        }),*];
    };
}

// === impl Case ===

impl Case {
    /// What must come of it there.
    #[must_use]
    pub fn expected(&self, backend: Backend) -> Expected {
        match backend {
            Backend::Kvm => self.kvm,
            Backend::Tcg => self.tcg,
        }
    }

    /// The letter of its category.
    #[must_use]
    pub fn category(&self) -> char {
        self.id.chars().next().unwrap_or('?')
    }
}

// === impl Expected ===

impl Expected {
    /// Whether the machine does not go on afterwards, so that the case needs a boot of its own.
    #[must_use]
    pub fn is_ending(self) -> bool {
        matches!(
            self,
            Self::Fault | Self::Off | Self::Reset | Self::OffOrReset | Self::Spins
        )
    }

    /// Whether this word of the guest's is what is expected.
    #[must_use]
    pub fn admits(self, verdict: &str) -> bool {
        match self {
            Self::Any => ["answered", "refused", "needs-reset"].contains(&verdict),
            _ => self.word() == verdict,
        }
    }

    /// How it is called in lists.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::NeedsReset => "needs-reset",
            Self::Any => "any",
            Self::Fault => "ends-guest",
            Self::Off => "switches-off",
            Self::Reset => "resets",
            Self::OffOrReset => "switches-off-or-resets",
            Self::Spins => "spins",
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
