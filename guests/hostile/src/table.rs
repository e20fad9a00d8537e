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
    /// The balloon.
    Balloon,
    /// The sockets.
    Vsock,
    /// The PCI bus, and the disk's function on it: cases of a machine that has PCI in place of virtio-mmio.
    Pci,
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
    /// There is no such device: QEMU-TCG gives a guest no sockets.
    Absent,
    /// Any of these three: the guest and the device are at the same memory or registers at once, and who comes first
    /// decides; or random bytes are what the device reads next.
    Race,
    /// Answered or refused: nothing is asked of the device properly, but it may look at its rings unasked, as QEMU's
    /// main loop does while it polls, and ours once when their driver is ready.
    Polled,
    /// Answered or refused: hosts differ in their CPU, their KVM's firmware calls and their interrupt controllers,
    /// and where something is not, its place is a hole.
    ByHost,
    /// An instruction that this CPU has not. It is refused by a fault in the guest, where the host's firmware hands such
    /// a fault on to whom it belongs. The lab does not: KVM then finds the guest at what looks like the host's own trap
    /// handler and cannot go on, whichever VMM runs there. There it is the guest's end, as [`Expected::Fault`] is.
    Illegal,
    /// Answered, refused, or the guest's end as [`Expected::Fault`] is: whether the instruction reaches the device at all
    /// is the CPU's matter.
    EndByHost,
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

    /// Whether it is for a machine with PCI.
    #[must_use]
    pub fn is_on_pci(&self) -> bool {
        self.device == Device::Pci
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
            Self::Illegal
                | Self::EndByHost
                | Self::Fault
                | Self::Off
                | Self::Reset
                | Self::OffOrReset
                | Self::Spins
        )
    }

    /// What the guest may say of it: one word, but for races and for what differs from host to host.
    #[must_use]
    pub fn verdicts(self) -> &'static [&'static str] {
        match self {
            Self::Answered => &["answered"],
            Self::Refused => &["refused"],
            Self::NeedsReset => &["needs-reset"],
            Self::Absent => &["absent"],
            Self::Race => &["answered", "refused", "needs-reset"],
            Self::Polled | Self::ByHost => &["answered", "refused"],
            Self::Illegal => &["refused", "ends-guest"],
            Self::EndByHost => &["answered", "refused", "ends-guest"],
            Self::Fault => &["ends-guest"],
            Self::Off => &["switches-off"],
            Self::Reset => &["resets"],
            Self::OffOrReset => &["switches-off", "resets"],
            Self::Spins => &["spins"],
        }
    }

    /// Whether this verdict is what is expected.
    #[must_use]
    pub fn admits(self, verdict: &str) -> bool {
        self.verdicts().contains(&verdict)
    }

    /// Why there is more than one verdict, where there is.
    #[must_use]
    pub fn why(self) -> Option<&'static str> {
        match self {
            Self::Race | Self::OffOrReset => Some("a race"),
            Self::Polled => Some("the device may poll"),
            Self::ByHost | Self::EndByHost => Some("by host"),
            Self::Illegal => Some("by the host's firmware"),
            _ => None,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, verdict) in self.verdicts().iter().enumerate() {
            f.write_str(if place == 0 { "" } else { "|" })?;
            f.write_str(verdict)?;
        }
        self.why().map_or(Ok(()), |why| write!(f, " ({why})"))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Blk => "disk",
            Self::ReadOnly => "read-only",
            Self::Net => "net",
            Self::Console => "console",
            Self::Rng => "rng",
            Self::Balloon => "balloon",
            Self::Vsock => "vsock",
            Self::Pci => "pci",
            Self::Uart => "uart",
            Self::Rtc => "rtc",
            Self::Syscon => "power",
            Self::Interrupts => "interrupts",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
        })
    }
}

impl fmt::Display for Case {
    /// A line of the list: name, category, what is misused, what must come of it on each backend, what is done.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:34} {:10} kvm: {}; tcg: {}; {}",
            self.category(),
            self.id,
            self.device,
            self.kvm,
            self.tcg,
            self.text
        )
    }
}
