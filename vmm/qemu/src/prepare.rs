//! What is looked at and made ready before QEMU is started: the same checks, in the same words, as for a KVM guest.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rvmm_backends::disk::{self, Devices, DiskError};
use rvmm_backends::net::{Passt, PasstError, Tap, TapError};
use rvmm_backends::plugged::{Plugged, PluggedKind};
use rvmm_backends::vars::{self, VarsError, VarsFile};
use rvmm_backends::vhost_user::{self, ShareError};
use rvmm_boot::firmware::{self, FLASH_BANK};
use rvmm_boot::kernel::{Form, Kernel};
use rvmm_boot::{BootError, KERNEL_OFFSET, RAM_BASE, memory};
use rvmm_spec::{Net, Network, Payload, Spec};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::command::Findings;
use crate::find::{self, FindError};

/// The name of variables that nobody keeps in the work folder.
const BLANK: &str = "variables";

/// The unpacked kernel's name in the work folder.
const UNPACKED: &str = "kernel";

/// Everything QEMU needs besides itself.
#[derive(Debug)]
pub struct Prepared {
    /// For its arguments.
    pub findings: Findings,
    /// For each network, the queues of its tap, to be inherited, if it has one.
    pub taps: Vec<Vec<Tap>>,
}

/// What the machine lacks.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Something that QEMU cannot give its guest without further programs.
    #[error("no {0} in QEMU-TCG: it is for guests under KVM")]
    Lacks(&'static str),
    /// No memory to look at the kernel in.
    #[error(transparent)]
    Memory(memory::MemoryError),
    /// Kernel or initrd.
    #[error(transparent)]
    Boot(BootError),
    /// The kernel could not be unpacked.
    #[error("kernel '{}' cannot be unpacked into '{}'", .0.display(), .1.display())]
    Unpack(PathBuf, PathBuf, #[source] io::Error),
    /// The firmware's variables.
    #[error(transparent)]
    Vars(VarsError),
    /// A place for them that goes with the machine.
    #[error("no file for the firmware's variables")]
    Scratch(#[source] io::Error),
    /// QEMU puts it elsewhere.
    #[error("kernel '{}' wants to be higher in memory than QEMU puts it: use --accel kvm", .0.display())]
    Offset(PathBuf),
    /// The process has no more.
    #[error("no descriptors for a device")]
    Descriptors(#[source] io::Error),
    /// A disk's file.
    #[error(transparent)]
    Disk(DiskError),
    /// A network interface.
    #[error(transparent)]
    Tap(TapError),
    /// A network of passt.
    #[error(transparent)]
    Passt(PasstError),
    /// A shared folder.
    #[error(transparent)]
    Share(ShareError),
    /// The firmware.
    #[error(transparent)]
    Firmware(FindError),
}

/// Checks all files, unpacks the kernel if need be, opens the networks.
///
/// # Errors
/// The first thing that is missing or wrong.
pub fn prepare(spec: &Spec, work_dir: &Path) -> Result<Prepared, PrepareError> {
    if spec.vsock().is_some() {
        return Err(PrepareError::Lacks("vsock"));
    }
    if spec.nets().iter().any(|net| net.vhost) {
        return Err(PrepareError::Lacks("vhost-net"));
    }
    for share in spec.shares() {
        vhost_user::probe(share.socket()).map_err(PrepareError::Share)?;
    }
    let findings = Findings {
        kernel: boot(spec, work_dir)?,
        flash: flash(spec, work_dir)?,
        device_tree: None,
        firmware: find::firmware().map_err(PrepareError::Firmware)?,
        block_devices: disks(spec).map_err(PrepareError::Disk)?,
        sandbox: true,
    };
    let taps = spec.nets().iter().map(queues);
    let taps = taps.collect::<Result<_, _>>()?;
    Ok(Prepared { findings, taps })
}

/// Finds every fault of a device that is plugged in, and says whether it is a disk on a block device.
///
/// # Errors
/// What was opened for it is not what it should be.
pub fn examine(device: &Plugged) -> Result<bool, PrepareError> {
    let copy = device.copy().map_err(PrepareError::Descriptors)?;
    match copy.kind {
        PluggedKind::Disk(disk, file) | PluggedKind::Lun(disk, file, _) => {
            disk::examine_from(&disk, file).map_err(PrepareError::Disk)
        }
        PluggedKind::Net(net, queues) => match &net.network {
            Network::Tap(name) => {
                Tap::adopt(name, queues).map_err(PrepareError::Tap)?;
                Ok(false)
            }
            Network::Passt(path) => {
                Passt::probe(path).map_err(PrepareError::Passt)?;
                Ok(false)
            }
        },
    }
}

/// Looks at kernel and initrd as for a KVM guest, which finds every fault in them. What QEMU cannot load itself is unpacked, in memory
/// that is thrown away again, and written out of it. `None` where the firmware is in flash.
fn boot(spec: &Spec, work_dir: &Path) -> Result<Option<PathBuf>, PrepareError> {
    let memory = memory::map(spec.memory()).map_err(PrepareError::Memory)?;
    let loaded = rvmm_boot::examine(spec.boot(), &memory, spec.memory()).map_err(PrepareError::Boot)?;
    let (path, kernel) = match (&spec.boot().payload, loaded.in_ram()) {
        (Payload::Kernel(path), Some(kernel)) => (path, kernel),
        (Payload::Firmware(firmware), Some(kernel)) => (&firmware.image, kernel),
        (_, None) => return Ok(None),
    };
    // QEMU enters a kernel that is no ELF at its start, and puts it where we do.
    let flat = kernel.entry == kernel.start && kernel.start == RAM_BASE + KERNEL_OFFSET;
    match kernel.form {
        Form::Packed | Form::Elf if flat => {
            let unpacked = work_dir.join(UNPACKED);
            let written = write(&memory, kernel, &unpacked);
            written.map_err(|error| PrepareError::Unpack(path.clone(), unpacked.clone(), error))?;
            Ok(Some(unpacked))
        }
        Form::Packed => Err(PrepareError::Offset(path.clone())),
        Form::Plain | Form::Elf => Ok(Some(path.clone())),
    }
}

fn write(memory: &GuestMemoryMmap, kernel: &Kernel, path: &Path) -> io::Result<()> {
    let length = usize::try_from(kernel.loaded).map_err(io::Error::other)?;
    let mut file = File::create(path)?;
    memory
        .write_all_volatile_to(GuestAddress(kernel.start), &mut file, length)
        .map_err(io::Error::other)?;
    // The BSS stays a hole.
    file.set_len(kernel.end - kernel.start)
}

/// The banks of a firmware in flash, looked at as for a KVM guest. Variables that nobody keeps are blank at each boot.
fn flash(spec: &Spec, work_dir: &Path) -> Result<Option<[PathBuf; 2]>, PrepareError> {
    let Payload::Firmware(firmware) = &spec.boot().payload else {
        return Ok(None);
    };
    if !firmware::is_volume(&firmware.image) {
        return Ok(None);
    }
    let Some(wanted) = &firmware.vars else {
        let blank = work_dir.join(BLANK);
        let made = File::create(&blank).and_then(|file| file.set_len(FLASH_BANK));
        made.map_err(PrepareError::Scratch)?;
        return Ok(Some([firmware.image.clone(), blank]));
    };
    vars::ensure(&wanted.file, wanted.template.as_deref(), FLASH_BANK).map_err(PrepareError::Vars)?;
    VarsFile::open(&wanted.file, FLASH_BANK).map_err(PrepareError::Vars)?;
    Ok(Some([firmware.image.clone(), wanted.file.clone()]))
}

/// The queues of a network's tap. QEMU connects to passt itself; whether anybody is there is seen before.
fn queues(net: &Net) -> Result<Vec<Tap>, PrepareError> {
    match &net.network {
        Network::Tap(name) => Tap::open(name, net.queues).map_err(PrepareError::Tap),
        Network::Passt(path) => match Passt::probe(path) {
            Ok(()) => Ok(Vec::new()),
            Err(error) => Err(PrepareError::Passt(error)),
        },
    }
}

/// Opens every disk as a KVM guest would, and closes it again: QEMU locks it for itself.
fn disks(spec: &Spec) -> Result<Vec<Devices>, DiskError> {
    spec.disks().iter().map(disk::examine).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use rvmm_spec::{Boot, Disk, Vsock};
    use std::fs;
    use std::io::Write;

    /// An Image that is all header: 64 bytes, of which the kernel wants one page.
    fn image() -> Vec<u8> {
        let mut image = vec![0; 64];
        image[16..24].copy_from_slice(&4096u64.to_le_bytes());
        image[56..60].copy_from_slice(b"RSC\x05");
        image
    }

    fn spec(folder: &Path, kernel: &[u8]) -> Spec {
        fs::write(folder.join("Image"), kernel).unwrap();
        Spec::builder(Boot::new(folder.join("Image"))).build().unwrap()
    }

    #[test]
    fn a_plain_kernel_is_used_as_it_is_and_a_gzipped_one_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let plain = spec(folder.path(), &image());
        assert_eq!(
            boot(&plain, folder.path()).unwrap(),
            Some(folder.path().join("Image"))
        );
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&image()).unwrap();
        let packed = spec(folder.path(), &packed.finish().unwrap());
        let unpacked = boot(&packed, folder.path()).unwrap().unwrap();
        let content = fs::read(unpacked).unwrap();
        assert_eq!((content.len(), &content[..64]), (4096, &image()[..]));
    }

    #[test]
    fn faults_are_told_as_for_a_kvm_guest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Image").display().to_string();
        let text = |error: PrepareError| format!("{error}: {}", std::error::Error::source(&error).unwrap());
        let arm = [&[0; 56][..], b"ARM\x64", &[0; 4]].concat();
        let foreign = prepare(&spec(folder.path(), &arm), folder.path()).unwrap_err();
        assert_eq!(
            text(foreign),
            format!("kernel '{path}': is an arm64 Image, not a riscv64 kernel")
        );
        let vsock = Vsock::new(3, "/v.sock").unwrap();
        let boot = Boot::new(folder.path().join("Image"));
        let refused = prepare(&Spec::builder(boot).vsock(vsock).build().unwrap(), folder.path()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "no vsock in QEMU-TCG: it is for guests under KVM"
        );
        let disk = Disk::new(folder.path().join("none"));
        spec(folder.path(), &image());
        let boot = Boot::new(folder.path().join("Image"));
        let spec = Spec::builder(boot).disk(disk).build().unwrap();
        let missing = prepare(&spec, folder.path()).unwrap_err();
        assert!(text(missing).contains("none' cannot be opened"));
    }
}
