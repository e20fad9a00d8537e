//! The bench: rvmm beside QEMU-KVM in one lab, and the bare boot as the floor.
//!
//! [`timing`] runs the boots under the instruction-counting clock, [`bare`] the machine without a hypervisor, [`idle`]
//! looks at guests that idle, [`report`] shows and keeps what was found, and
//! [`chart`] draws it.

pub mod bare;
pub mod chart;
pub mod idle;
pub mod memory;
pub mod report;
pub mod timing;

use std::path::Path;

use anyhow::Result;
use rvm_guests::{Cache, cross};

use crate::image;
use report::{Figure, Unit};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// Ours.
    Rvmm,
    /// QEMU with KVM.
    QemuKvm,
    /// The outer machine itself.
    Bare,
}

impl System {
    /// All, in the order of the columns.
    pub const ALL: [Self; 3] = [Self::Bare, Self::Rvmm, Self::QemuKvm];

    /// The name in the results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rvmm => "rvmm",
            Self::QemuKvm => "qemu-kvm",
            Self::Bare => "bare",
        }
    }

    /// The command line, in the lab, that boots the measured guest with so many vCPUs and this much memory.
    fn command(self, cpus: u32, memory_mib: u32, cmdline: &str) -> String {
        let (kernel, initrd) = (image::KERNEL, image::BENCH);
        match self {
            Self::Rvmm => format!(
                "rvmm --accel kvm --kernel {kernel} --initrd {initrd} --memory {memory_mib}M --cpus {cpus} \
                 --cmdline '{cmdline}'"
            ),
            Self::QemuKvm => format!(
                "qemu-system-riscv64 -accel kvm -cpu host -M virt -nographic -no-reboot -kernel {kernel} \
                 -initrd {initrd} -m {memory_mib}M -smp {cpus} -append '{cmdline}'"
            ),
            Self::Bare => String::new(),
        }
    }
}

/// What the measured guest says first.
const MARKER: &str = "GUEST-UP";

const CMDLINE: &str = "console=ttyS0 quiet";

/// Builds rvmm as it is shipped and measures all rows.
pub fn run(cache: &Cache, mut progress: impl FnMut(&str) -> Result<()>) -> Result<Vec<Figure>> {
    progress("building rvmm as it is shipped (dist, riscv64)")?;
    let rvmm = cross::build(cache, &["rvmm"], "dist")?.join("rvmm");
    progress("bare boots, the clock counting instructions (about 30 s)")?;
    let mut figures = bare::measure(cache)?;
    progress("boots under KVM, the clock counting instructions (about 3 min)")?;
    figures.extend(timing::measure(&rvmm)?);
    progress("idle guests: memory besides the guest's, exits (about 40 s)")?;
    figures.extend(idle::measure(&rvmm)?);
    figures.extend(sizes(cache, &rvmm)?);
    Ok(figures)
}

fn sizes(cache: &Cache, rvmm: &Path) -> Result<[Figure; 2]> {
    let size = |system, path: &Path| {
        Ok::<_, anyhow::Error>(Figure::bytes(
            "binary-size",
            system,
            std::fs::metadata(path)?.len(),
        ))
    };
    Ok([
        size(System::Rvmm, rvmm)?,
        size(System::QemuKvm, &image::emulator_in_host(cache)?)?,
    ])
}

impl Figure {
    /// A number of bytes.
    #[must_use]
    pub fn bytes(row: &'static str, system: System, bytes: u64) -> Self {
        Self::whole(row, system, bytes, Unit::Bytes)
    }

    /// A number of exits, of guests, of anything.
    #[must_use]
    pub fn count(row: &'static str, system: System, count: u64) -> Self {
        Self::whole(row, system, count, Unit::Count)
    }

    fn whole(row: &'static str, system: System, value: u64, unit: Unit) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "no number here comes near 2^52")]
        let value = value as f64;
        Self {
            row,
            system,
            value,
            spread: (value, value),
            unit,
        }
    }
}
