//! What is looked at and made ready before QEMU is started: the same checks, in the same words, as for a KVM guest.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rvmm_backends::disk::{self, DiskError};
use rvmm_backends::net::{Passt, PasstError, Tap, TapError};
use rvmm_boot::image::{self, Kernel};
use rvmm_boot::{BootError, DEVICE_TREE_ROOM, RAM_BASE, initrd, memory};
use rvmm_spec::{Net, Network, Spec};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::command::Findings;
use crate::find::{self, FindError};

/// How a gzip'd file begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

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
    /// A disk's file.
    #[error(transparent)]
    Disk(DiskError),
    /// A network interface.
    #[error(transparent)]
    Tap(TapError),
    /// A network of passt.
    #[error(transparent)]
    Passt(PasstError),
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
    let findings = Findings {
        kernel: boot(spec, work_dir)?,
        firmware: find::firmware().map_err(PrepareError::Firmware)?,
        block_devices: disks(spec).map_err(PrepareError::Disk)?,
        sandbox: true,
    };
    let taps = spec.nets().iter().map(queues);
    let taps = taps.collect::<Result<_, _>>()?;
    Ok(Prepared { findings, taps })
}

/// Loads kernel and initrd as for a KVM guest, which finds every fault in them, and throws the memory away again. A
/// kernel that QEMU cannot load itself is written out of it.
fn boot(spec: &Spec, work_dir: &Path) -> Result<PathBuf, PrepareError> {
    let boot = spec.boot();
    let memory = memory::map(spec.memory()).map_err(PrepareError::Memory)?;
    let limit = RAM_BASE + spec.memory().bytes() - DEVICE_TREE_ROOM;
    let kernel = image::load(&boot.kernel, &memory, RAM_BASE, limit)
        .map_err(|error| PrepareError::Boot(BootError::Kernel(boot.kernel.clone(), error)))?;
    if let Some(path) = &boot.initrd {
        initrd::load(path, &memory, kernel.end, limit)
            .map_err(|error| PrepareError::Boot(BootError::Initrd(path.clone(), error)))?;
    }
    let unpacked = work_dir.join(UNPACKED);
    let written = is_packed(&boot.kernel).and_then(|packed| {
        if packed {
            write(&memory, &kernel, &unpacked)?;
        }
        Ok(packed)
    });
    match written {
        Ok(true) => Ok(unpacked),
        Ok(false) => Ok(boot.kernel.clone()),
        Err(error) => Err(PrepareError::Unpack(boot.kernel.clone(), unpacked, error)),
    }
}

fn is_packed(kernel: &Path) -> io::Result<bool> {
    let mut start = [0; GZIP.len()];
    File::open(kernel)?.read_exact(&mut start)?;
    Ok(start == GZIP)
}

fn write(memory: &GuestMemoryMmap, kernel: &Kernel, path: &Path) -> io::Result<()> {
    let length = usize::try_from(kernel.loaded).map_err(io::Error::other)?;
    let mut file = File::create(path)?;
    memory
        .write_all_volatile_to(GuestAddress(kernel.entry), &mut file, length)
        .map_err(io::Error::other)?;
    // The BSS stays a hole.
    file.set_len(kernel.end - kernel.entry)
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
fn disks(spec: &Spec) -> Result<Vec<bool>, DiskError> {
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
        assert_eq!(boot(&plain, folder.path()).unwrap(), folder.path().join("Image"));
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&image()).unwrap();
        let packed = spec(folder.path(), &packed.finish().unwrap());
        let unpacked = boot(&packed, folder.path()).unwrap();
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
            format!("kernel '{path}': is an arm64 Image, not a riscv64 Image")
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
