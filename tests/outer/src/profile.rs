//! The hosts that the lab can be: the matrix every KVM claim is tested on.

use anyhow::{Context, Result};

/// One kind of host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// What it is called on command lines.
    pub name: &'static str,
    /// What it stands for.
    pub about: &'static str,
    /// `-machine`.
    pub machine: &'static str,
    /// `-cpu`.
    pub cpu: &'static str,
    /// `-smp`.
    pub cpus: u8,
    /// `-m`, in MiB. Pages that are not used cost the build machine nothing.
    pub memory_mib: u32,
    /// Whether QEMU is installed in it, which makes it slower to start.
    pub emulator: bool,
    /// Where its clock counts instructions: what all that is random in it comes from, so that two runs are the same to the
    /// last instruction. Nothing can be connected to such a host; it runs one job and ends.
    pub counting: Option<u32>,
    /// What KVM writes to the kernel log about interrupts when it is loaded there; `None` where there is no KVM.
    pub kvm_says: Option<&'static str>,
}

const VIRT: Profile = Profile {
    name: "plain",
    about: "KVM without AIA: interrupts go through a PLIC in user space",
    machine: "virt",
    cpu: "rv64,h=true,sstc=true",
    cpus: 2,
    memory_mib: 3072,
    emulator: false,
    counting: None,
    kvm_says: Some("hypervisor extension available"),
};

impl Profile {
    /// KVM without AIA.
    pub const PLAIN: Self = VIRT;
    /// KVM with AIA, guest interrupt files emulated: the everyday host.
    pub const AIA: Self = Self {
        name: "aia",
        about: "KVM with AIA, guest interrupt files emulated by the kernel",
        machine: "virt,aia=aplic-imsic",
        kvm_says: Some("AIA available with 0 guest external interrupts"),
        ..VIRT
    };
    /// KVM with AIA and guest interrupt files in hardware.
    pub const AIA_GUESTS: Self = Self {
        name: "aia-guests",
        about: "KVM with AIA and three guest interrupt files in hardware",
        machine: "virt,aia=aplic-imsic,aia-guests=3",
        kvm_says: Some("AIA available with 3 guest external interrupts"),
        ..VIRT
    };
    /// Every extension that the emulator knows.
    pub const MAX: Self = Self {
        name: "max",
        about: "AIA and every ISA extension: Smstateen, vector, Svpbmt; slower",
        cpu: "max",
        ..Self::AIA
    };
    /// No hypervisor extension, but QEMU: where rvmm falls back to emulation.
    pub const NO_KVM: Self = Self {
        name: "no-kvm",
        about: "no hypervisor extension, QEMU installed",
        cpu: "rv64,h=false,sstc=true",
        emulator: true,
        kvm_says: None,
        ..VIRT
    };
    /// For comparisons with QEMU in figures that are no times.
    pub const PEER: Self = Self {
        name: "peer",
        about: "as aia, QEMU installed",
        emulator: true,
        ..Self::AIA
    };
    /// For comparisons in time.
    pub const COUNTING: Self = Self {
        name: "counting",
        about: "as peer, one CPU, the clock counts instructions; runs one job and ends",
        cpus: 1,
        counting: Some(1),
        ..Self::PEER
    };

    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::PLAIN,
        Self::AIA,
        Self::AIA_GUESTS,
        Self::MAX,
        Self::NO_KVM,
        Self::PEER,
        Self::COUNTING,
    ];

    /// The profile of this name.
    pub fn named(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name == name)
            .with_context(|| {
                let names: Vec<_> = Self::ALL.iter().map(|profile| profile.name).collect();
                format!("no profile {name}; there are {}", names.join(", "))
            })
    }

    /// How QEMU is told about it.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let memory = format!("{}M", self.memory_mib);
        let cpus = self.cpus.to_string();
        let seed = self.counting.map(|seed| seed.to_string());
        let clock = match &seed {
            // An instruction takes two nanoseconds. The date is a fixed one, and moves on with that clock.
            Some(seed) => vec![
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=1,sleep=off",
                "-rtc",
                "base=2026-01-01T00:00:00,clock=vm",
                "-seed",
                seed,
            ],
            None => vec!["-accel", "tcg,thread=multi"],
        };
        let machine = [
            "-machine",
            self.machine,
            "-cpu",
            self.cpu,
            "-smp",
            &cpus,
            "-m",
            &memory,
        ];
        machine.into_iter().chain(clock).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_found_by_its_name_and_no_other() {
        assert_eq!(
            Profile::ALL.map(|profile| Profile::named(profile.name).unwrap()),
            Profile::ALL
        );
        let error = Profile::named("aai").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("no profile aai; there are plain, aia,"),
            "{error}"
        );
    }

    #[test]
    fn a_counting_host_runs_on_one_thread_and_its_own_clock() {
        let line = Profile::COUNTING.arguments().join(" ");
        assert!(
            line.contains("-smp 1 ") && line.contains("thread=single -icount shift=1,sleep=off"),
            "{line}"
        );
    }
}
