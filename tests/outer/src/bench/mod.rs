//! The bench: rvmm beside QEMU-KVM in one lab, and the bare boot as the floor.
//!
//! [`timing`] runs the boots under the instruction-counting clock, [`bare`] the machine without a hypervisor; [`block`] and
//! [`net`] move bytes by that clock; [`images`] and [`scale`] are about this machine; [`idle`] looks at a guest that idles, [`many`] at twenty; [`report`] shows and keeps
//! what was found, and [`chart`] draws it.

pub mod bare;
pub mod block;
pub mod chart;
pub mod exits;
pub mod guest;
pub mod idle;
pub mod images;
pub mod many;
pub mod memory;
pub mod net;
pub mod report;
pub mod scale;
pub mod timing;

use std::path::{Path, PathBuf};

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
    /// The usual tools for images.
    Tools,
}

impl System {
    /// All, in the order of the columns.
    pub const ALL: [Self; 4] = [Self::Bare, Self::Rvmm, Self::QemuKvm, Self::Tools];

    /// The name in the results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rvmm => "rvmm",
            Self::QemuKvm => "qemu-kvm",
            Self::Bare => "bare",
            Self::Tools => "usual tools",
        }
    }

    /// The command line, in the lab, that boots the measured guest with so many vCPUs and this much memory.
    fn command(self, cpus: u32, memory_mib: u32, cmdline: &str) -> String {
        self.command_with(image::BENCH, cpus, memory_mib, cmdline, "")
    }

    /// The same with another initramfs and with `devices`.
    fn command_with(self, initrd: &str, cpus: u32, memory_mib: u32, cmdline: &str, devices: &str) -> String {
        let kernel = image::KERNEL;
        match self {
            Self::Rvmm => format!(
                "rvmm --accel kvm --kernel {kernel} --initrd {initrd} --memory {memory_mib}M --cpus {cpus} \
                 --cmdline '{cmdline}' {devices}"
            ),
            Self::QemuKvm => format!(
                "qemu-system-riscv64 -accel kvm -cpu host -M virt -nographic -no-reboot -kernel {kernel} \
                 -initrd {initrd} -m {memory_mib}M -smp {cpus} -append '{cmdline}' {devices}"
            ),
            Self::Bare | Self::Tools => String::new(),
        }
    }
}

/// Rows that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Rows {
    /// Boots, and the bare machine's.
    Boot,
    /// Disks.
    Block,
    /// Network cards.
    Net,
    /// One idle guest: memory and exits.
    Idle,
    /// Twenty guests at once.
    Many,
    /// Sizes of programs.
    Size,
    /// Images, on this machine's clock.
    Images,
    /// Whole starts, on the same.
    Start,
    /// A thousand machines, on the same.
    Scale,
}

impl Rows {
    /// All, in the order of the table.
    pub const ALL: [Self; 9] = [
        Self::Boot,
        Self::Block,
        Self::Net,
        Self::Idle,
        Self::Many,
        Self::Size,
        Self::Images,
        Self::Start,
        Self::Scale,
    ];

    /// What is done, and how long it takes where nothing else runs.
    fn about(self) -> &'static str {
        match self {
            Self::Boot => "boots, the clock counting instructions (about 3 min)",
            Self::Block => "disks, the clock counting instructions (about 3 min)",
            Self::Net => "network cards, the clock counting instructions (about 1 min)",
            Self::Idle => "an idle guest: memory besides its own, exits (about 40 s)",
            Self::Many => "twenty guests at once (about 3 min)",
            Self::Size => "sizes",
            Self::Images => "images, on this machine (about 3 min)",
            Self::Start => "starts, on this machine (about 3 min)",
            Self::Scale => "a thousand machines, on this machine (about 6 min)",
        }
    }

    fn measure(self, cache: &Cache, rvmm: &Path) -> Result<Vec<Figure>> {
        match self {
            Self::Boot => Ok([bare::measure(cache)?, timing::measure(rvmm)?].concat()),
            Self::Block => Ok([block::measure(cache, rvmm)?, block::count(cache, rvmm)?].concat()),
            Self::Net => net::measure(cache, rvmm),
            Self::Idle => idle::measure(rvmm),
            Self::Many => many::measure(rvmm),
            Self::Size => Ok(sizes(cache, rvmm)?.to_vec()),
            Self::Images => images::measure(cache),
            Self::Start => images::measure_starts(cache),
            Self::Scale => scale::measure(),
        }
    }
}

/// Has KVM do QEMU's interrupts in the kernel. It boots more slowly so, but its devices are faster.
const IN_KERNEL: &str = "-M aia=aplic-imsic";

/// What the measured guest says first.
const MARKER: &str = "GUEST-UP";

const CMDLINE: &str = "console=ttyS0 quiet";

/// Builds rvmm as it is shipped and measures these rows. `done` hears what came of each group; one that failed keeps no
/// other from being measured.
pub fn run(
    cache: &Cache,
    rows: &[Rows],
    mut progress: impl FnMut(&str) -> Result<()>,
    mut done: impl FnMut(Result<Vec<Figure>>),
) -> Result<()> {
    let here = [Rows::Images, Rows::Start, Rows::Scale];
    let rvmm = if rows.iter().all(|group| here.contains(group)) {
        PathBuf::new()
    } else {
        progress("building rvmm as it is shipped (dist, riscv64)")?;
        cross::build(cache, &["rvmm"], "dist")?.join("rvmm")
    };
    for group in Rows::ALL.into_iter().filter(|group| rows.contains(group)) {
        progress(group.about())?;
        done(group.measure(cache, &rvmm));
    }
    Ok(())
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

    /// So many of something for each of so many.
    #[must_use]
    pub fn ratio(row: &'static str, system: System, count: u64, of: u32) -> Self {
        let count = Self::whole(row, system, count, Unit::Ratio);
        let value = (count.value / f64::from(of) * 1e3).round() / 1e3;
        Self {
            value,
            spread: (value, value),
            ..count
        }
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
