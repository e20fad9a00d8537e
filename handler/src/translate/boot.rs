//! What a VMI boots: an ordinary image as root file system, a kernel out of an image, or firmware, ours or its author's, that
//! looks at its disks.

use std::path::PathBuf;

use rvm_types::VirtualMachineInstance;
use rvm_types::admission::{Cause, Path};
use rvm_types::domain::KernelBoot;
use rvm_types::names::firmware::EDK2;
use rvmm_spec::boot::DEFAULT_CMDLINE;
use rvmm_spec::{Boot, Firmware, Vars};

/// Longest host name that Linux takes, as a DNS label.
const MAX_HOSTNAME: usize = 63;

/// What is started first, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootSource {
    /// The image's layers are the root file system; kernel and init are ours.
    RootFilesystem {
        /// The image's reference.
        image: String,
        /// What the guest calls itself.
        hostname: String,
        /// More for the kernel's command line.
        args: Option<String>,
        /// An image and a path in it: the kernel in place of ours.
        kernel: Option<(String, String)>,
    },
    /// Kernel and initrd are files of an image.
    Kernel {
        /// The image's reference.
        image: String,
        /// The kernel's path in it.
        kernel: String,
        /// The initial RAM disk's path in it.
        initrd: Option<String>,
        /// The kernel's command line.
        args: Option<String>,
    },
    /// EFI firmware boots one of the disks.
    Firmware(Efi),
    /// The author's own firmware does, a file of an image.
    OwnFirmware {
        /// The image's reference.
        image: String,
        /// The firmware's path in it.
        path: String,
    },
}

/// The firmware that looks for EFI applications on disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Efi {
    /// U-Boot, which forgets its variables.
    UBoot,
    /// EDK2.
    Edk2 {
        /// Whether its variables are kept for as long as the VMI is there.
        keeps: bool,
    },
}

/// What a checked VMI boots.
///
/// # Errors
/// A kernel or a volume that it names and that is not there.
pub fn source(vmi: &VirtualMachineInstance) -> Result<BootSource, Cause> {
    let firmware = vmi.spec.domain.firmware.as_ref();
    let kernel_boot = firmware.and_then(|firmware| firmware.kernel_boot.as_ref());
    let args = kernel_boot
        .and_then(|boot| boot.kernel_args.clone())
        .filter(|args| !args.is_empty());
    if let Some(name) = vmi.root_filesystem() {
        let volume = vmi.spec.volumes.iter().find(|volume| volume.name == name);
        let disk = volume.and_then(|volume| volume.container_disk.as_ref());
        let path = Path::new("metadata.annotations[rvm/root-filesystem]");
        let disk = disk.ok_or_else(|| path.invalid("names no containerDisk"))?;
        return Ok(BootSource::RootFilesystem {
            image: disk.image.clone(),
            hostname: hostname(vmi),
            args,
            kernel: own_kernel(kernel_boot),
        });
    }
    let path = Path::new("spec.domain.firmware.kernelBoot.container");
    let Some(container) = kernel_boot.and_then(|boot| boot.container.as_ref()) else {
        return Ok(BootSource::Firmware(efi(vmi)));
    };
    let kernel = container.kernel_path.clone();
    let kernel = kernel.ok_or_else(|| path.field("kernelPath").required("is missing"))?;
    let image = container.image.clone();
    if vmi.brings_firmware() {
        return Ok(BootSource::OwnFirmware { image, path: kernel });
    }
    Ok(BootSource::Kernel {
        image,
        kernel,
        initrd: container.initrd_path.clone(),
        args,
    })
}

/// The kernel that its author brings for a root file system.
fn own_kernel(boot: Option<&KernelBoot>) -> Option<(String, String)> {
    let container = boot?.container.as_ref()?;
    Some((container.image.clone(), container.kernel_path.clone()?))
}

/// The firmware that its author names, or that can do what he asks for; else the smaller one.
fn efi(vmi: &VirtualMachineInstance) -> Efi {
    let keeps = vmi.keeps_efi_variables();
    if keeps || vmi.firmware() == Some(EDK2) {
        Efi::Edk2 { keeps }
    } else {
        Efi::UBoot
    }
}

/// What the guest calls itself: the VMI's name where it does not say, made a single label as KubeVirt does.
pub fn hostname(vmi: &VirtualMachineInstance) -> String {
    let name = vmi
        .spec
        .hostname
        .as_deref()
        .or(vmi.metadata.name.as_deref())
        .unwrap_or("vm");
    let label: String = name
        .chars()
        .map(|c| if c == '.' { '-' } else { c })
        .take(MAX_HOSTNAME)
        .collect();
    label.trim_end_matches('-').to_owned()
}

// === impl BootSource ===

impl BootSource {
    /// What starts, from its file; a firmware keeps its variables in `vars`.
    pub fn boot(&self, payload: PathBuf, initrd: Option<PathBuf>, vars: Option<Vars>) -> Boot {
        match self {
            Self::Firmware(_) | Self::OwnFirmware { .. } => Boot::firmware(Firmware { image: payload, vars }),
            _ => Boot {
                initrd,
                cmdline: self.cmdline(),
                ..Boot::new(payload)
            },
        }
    }

    /// The kernel's command line; a firmware has none.
    pub fn cmdline(&self) -> String {
        match self {
            Self::RootFilesystem { hostname, args, .. } => {
                let ours = format!("{DEFAULT_CMDLINE} quiet rdinit=/rvm-init rvm.hostname={hostname}");
                args.iter().fold(ours, |line, more| format!("{line} {more}"))
            }
            Self::Firmware(_) | Self::OwnFirmware { .. } => String::new(),
            Self::Kernel { args, .. } => args.clone().unwrap_or_else(|| DEFAULT_CMDLINE.to_owned()),
        }
    }
}
