//! The disks of a VMI, in the order in which the guest finds them.

use std::path::PathBuf;

use rvm_types::VirtualMachineInstance;
use rvm_types::admission::{Cause, Path};
use rvm_types::devices::Disk;

/// Size of a sector: a disk has whole ones.
const SECTOR: u64 = 512;

/// Largest empty disk: 16 TiB, what common file systems hold in one file.
const MAX_CAPACITY: u64 = 16 << 40;

/// A disk that has to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskWish {
    /// The volume that it is made from.
    pub volume: String,
    /// Bytes, all zero at first.
    pub capacity: u64,
    /// The guest may only read.
    pub read_only: bool,
    /// What the guest reads back as serial.
    pub serial: Option<String>,
}

// === impl DiskWish ===

impl DiskWish {
    /// The disk, in this file.
    pub fn at(&self, path: PathBuf) -> rvmm_spec::Disk {
        rvmm_spec::Disk {
            read_only: self.read_only,
            serial: self.serial.clone(),
            ..rvmm_spec::Disk::new(path)
        }
    }
}

/// The disks of a checked VMI. The volume that is its root file system is none of them.
///
/// # Errors
/// One cause for each disk that cannot be made.
pub fn wishes(vmi: &VirtualMachineInstance) -> Result<Vec<DiskWish>, Vec<Cause>> {
    let disks = vmi.spec.domain.devices.disks.iter();
    let disks = disks.filter(|disk| Some(disk.name.as_str()) != vmi.root_filesystem());
    let (wishes, causes): (Vec<_>, Vec<_>) = disks.map(|disk| wish(vmi, disk)).partition(Result::is_ok);
    if causes.is_empty() {
        return Ok(wishes.into_iter().flatten().collect());
    }
    Err(causes.into_iter().filter_map(Result::err).collect())
}

fn wish(vmi: &VirtualMachineInstance, disk: &Disk) -> Result<DiskWish, Cause> {
    let volumes = &vmi.spec.volumes;
    let path = Path::new("spec.volumes");
    let index = volumes.iter().position(|volume| volume.name == disk.name);
    let index = index.ok_or_else(|| path.required(format_args!("has no volume {:?}", disk.name)))?;
    let path = path.index(index);
    let Some(empty) = &volumes[index].empty_disk else {
        return Err(path.field("containerDisk").not_supported(
            "is not supported as a disk yet; the annotation rvm/root-filesystem makes its image the root file system",
        ));
    };
    let path = path.field("emptyDisk.capacity");
    let bytes = empty.capacity.bytes().map_err(|error| path.invalid(error))?;
    let capacity = bytes
        .checked_next_multiple_of(SECTOR)
        .filter(|bytes| *bytes <= MAX_CAPACITY);
    let readonly = disk
        .disk
        .as_ref()
        .and_then(|target| target.readonly)
        .unwrap_or(false);
    Ok(DiskWish {
        volume: disk.name.clone(),
        capacity: capacity.ok_or_else(|| path.invalid("is more than 16Ti"))?,
        read_only: readonly || disk.cdrom.is_some(),
        serial: disk.serial.clone().filter(|serial| !serial.is_empty()),
    })
}
