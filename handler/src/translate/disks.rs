//! The disks of a VMI, in the order in which the guest finds them: that of `bootOrder`, then that of the manifest.

use std::path::PathBuf;

use rvm_types::VirtualMachineInstance;
use rvm_types::admission::{Cause, Path};
use rvm_types::config::{CloudInit, DownwardApiFile};
use rvm_types::devices::Disk;
use rvm_types::hotplug;
use rvm_types::quantity::Quantity;
use rvm_types::volume::Volume;
use rvmm_spec::{CacheMode, DiskBus, OnDiskError};

use crate::volumes::DiskFile;
use crate::volumes::cloud_init::{CONFIG_DRIVE_LABEL, NO_CLOUD_LABEL};

/// Size of a sector: a disk has whole ones.
pub const SECTOR: u64 = 512;

/// Largest disk that is made: 16 TiB, what common file systems hold in one file.
const MAX_CAPACITY: u64 = 16 << 40;

/// The label of a disk of files where its volume does not say: KubeVirt's.
const DEFAULT_LABEL: &str = "cfgdata";

/// Permissions of files that whoever is in the guest may read, as in a pod.
const FOR_ALL: u32 = 0o444;

/// Permissions of files that only cloud-init needs.
const FOR_ROOT: u32 = 0o400;

/// A disk that has to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct DiskWish {
    /// The volume that it is made from.
    pub volume: String,
    /// What it is made from.
    pub source: DiskSource,
    /// The guest may only read.
    pub read_only: bool,
    /// What the guest reads back as serial.
    pub serial: Option<String>,
    /// How the guest reaches it.
    pub bus: DiskBus,
    /// How it is cached.
    pub cache: CacheWish,
    /// What is done when the node cannot do what the guest asks of it.
    pub on_error: OnDiskError,
}

/// What a disk is made from.
#[derive(Debug, Clone, PartialEq)]
pub enum DiskSource {
    /// Nothing: so many bytes, all zero.
    Empty {
        /// Bytes.
        capacity: u64,
    },
    /// The file of an image.
    Container {
        /// The image's reference.
        image: String,
        /// The file's path in it, where it is not the only one under `/disk`.
        path: Option<String>,
    },
    /// A PersistentVolumeClaim.
    Claim {
        /// Its name.
        name: String,
        /// It is only read; what the guest writes lies over it.
        over: bool,
    },
    /// A file of the node.
    Host {
        /// The file.
        path: PathBuf,
        /// Its size where it is to be made.
        create: Option<u64>,
    },
    /// A few files, which the guest finds by the disk's label.
    Files {
        /// The label.
        label: String,
        /// The files' permissions.
        mode: u32,
        /// Where they come from.
        from: FilesSource,
    },
}

/// Where the files of a disk come from.
#[derive(Debug, Clone, PartialEq)]
pub enum FilesSource {
    /// The keys of a ConfigMap.
    ConfigMap {
        /// Its name.
        name: String,
        /// The machine starts without it, too.
        optional: bool,
    },
    /// The keys of a Secret.
    Secret {
        /// Its name.
        name: String,
        /// The machine starts without it, too.
        optional: bool,
    },
    /// What a pod of a ServiceAccount has to speak to the cluster.
    ServiceAccount {
        /// Its name.
        name: String,
    },
    /// Fields of the VMI.
    DownwardApi(Vec<DownwardApiFile>),
    /// For cloud-init's data source NoCloud.
    NoCloud(Box<CloudInit>),
    /// For cloud-init's data source ConfigDrive.
    ConfigDrive(Box<CloudInit>),
}

/// How a disk is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheWish {
    /// Past the node's page cache; where that cannot be, written through it.
    None,
    /// Written through it.
    Writethrough,
    /// Until the guest flushes.
    Writeback,
}

// === impl DiskWish ===

impl DiskWish {
    /// The disk, in this file.
    pub fn at(&self, file: DiskFile) -> rvmm_spec::Disk {
        let cache = match self.cache {
            CacheWish::None if file.direct => CacheMode::Writeback,
            CacheWish::None | CacheWish::Writethrough => CacheMode::Writethrough,
            CacheWish::Writeback => CacheMode::Writeback,
        };
        rvmm_spec::Disk {
            read_only: self.read_only,
            bus: self.bus,
            serial: self.serial.clone(),
            format: file.format,
            base: file.base,
            direct: file.direct,
            cache,
            on_error: self.on_error,
            ..rvmm_spec::Disk::new(file.path)
        }
    }
}

/// The disks of a checked VMI that are there from the start. The volume that is its root file system is none of them.
///
/// # Errors
/// One cause for each disk that cannot be made.
pub fn wishes(vmi: &VirtualMachineInstance) -> Result<Vec<DiskWish>, Vec<Cause>> {
    let disks = vmi.spec.domain.devices.disks.iter();
    let mut disks: Vec<&Disk> = disks
        .filter(|disk| Some(disk.name.as_str()) != vmi.root_filesystem())
        .filter(|disk| !vmi.hotpluggable().any(|volume| volume.name == disk.name))
        .collect();
    disks.sort_by_key(|disk| disk.boot_order.unwrap_or(u64::MAX));
    let made = disks.into_iter().map(|disk| wish(vmi, disk));
    let (wishes, causes): (Vec<_>, Vec<_>) = made.partition(Result::is_ok);
    if causes.is_empty() {
        return Ok(wishes.into_iter().flatten().collect());
    }
    Err(causes.into_iter().filter_map(Result::err).collect())
}

/// The disk of a checked VMI that comes and goes, by its volume.
///
/// # Errors
/// It cannot be made.
pub fn plugged(vmi: &VirtualMachineInstance, volume: &str) -> Result<DiskWish, Cause> {
    let mut disks = vmi.spec.domain.devices.disks.iter();
    let disk = disks.find(|disk| disk.name == volume);
    let missing = || Path::new("spec.domain.devices.disks").required(format_args!("has no disk {volume:?}"));
    wish(vmi, disk.ok_or_else(missing)?)
}

fn wish(vmi: &VirtualMachineInstance, disk: &Disk) -> Result<DiskWish, Cause> {
    let volumes = &vmi.spec.volumes;
    let path = Path::new("spec.volumes");
    let index = volumes.iter().position(|volume| volume.name == disk.name);
    let index = index.ok_or_else(|| path.required(format_args!("has no volume {:?}", disk.name)))?;
    let source = source(&volumes[index], &path.index(index))?;
    let readonly = disk
        .disk
        .as_ref()
        .and_then(|target| target.readonly)
        .unwrap_or(false);
    let target = disk.disk.as_ref().and_then(|target| target.bus.as_deref());
    let bus = target.or(disk.cdrom.as_ref().and_then(|target| target.bus.as_deref()));
    Ok(DiskWish {
        volume: disk.name.clone(),
        bus: match bus {
            Some(hotplug::BUS) => DiskBus::Scsi,
            _ => DiskBus::Virtio,
        },
        // What was made for the guest to read is the same however often it is made.
        read_only: readonly || disk.cdrom.is_some() || is_read_only(&volumes[index], &source),
        source,
        serial: disk.serial.clone().filter(|serial| !serial.is_empty()),
        cache: match disk.cache.as_deref() {
            Some("none") => CacheWish::None,
            Some("writethrough") => CacheWish::Writethrough,
            _ => CacheWish::Writeback,
        },
        on_error: match disk.error_policy.as_deref() {
            Some("report") => OnDiskError::Report,
            Some("enospace") => OnDiskError::Enospc,
            Some("ignore") => OnDiskError::Ignore,
            _ => OnDiskError::Stop,
        },
    })
}

/// Whether the volume itself is only read.
fn is_read_only(volume: &Volume, source: &DiskSource) -> bool {
    let claim = volume.persistent_volume_claim.as_ref();
    matches!(source, DiskSource::Files { .. }) || claim.and_then(|claim| claim.read_only).unwrap_or(false)
}

fn source(volume: &Volume, path: &Path) -> Result<DiskSource, Cause> {
    if let Some(empty) = &volume.empty_disk {
        let capacity = whole_sectors(&empty.capacity, &path.field("emptyDisk.capacity"))?;
        return Ok(DiskSource::Empty { capacity });
    }
    if let Some(disk) = &volume.container_disk {
        return Ok(DiskSource::Container {
            image: disk.image.clone(),
            path: disk.path.clone(),
        });
    }
    if let Some(disk) = &volume.host_disk {
        let size = |capacity| whole_sectors(capacity, &path.field("hostDisk.capacity"));
        return Ok(DiskSource::Host {
            path: PathBuf::from(&disk.path),
            create: disk.capacity.as_ref().map(size).transpose()?,
        });
    }
    let ephemeral = volume.ephemeral.as_ref();
    let under = ephemeral.and_then(|ephemeral| ephemeral.persistent_volume_claim.as_ref());
    if let Some(claim) = under.or(volume.persistent_volume_claim.as_ref()) {
        let (name, over) = (claim.claim_name.clone().unwrap_or_default(), under.is_some());
        return Ok(DiskSource::Claim { name, over });
    }
    files(volume).ok_or_else(|| path.required("must have exactly one source"))
}

fn files(volume: &Volume) -> Option<DiskSource> {
    let (label, mode, from) = match (&volume.cloud_init_no_cloud, &volume.cloud_init_config_drive) {
        (Some(data), _) => {
            let from = FilesSource::NoCloud(Box::new(data.clone()));
            (NO_CLOUD_LABEL.to_owned(), FOR_ROOT, from)
        }
        (None, Some(data)) => {
            let from = FilesSource::ConfigDrive(Box::new(data.clone()));
            (CONFIG_DRIVE_LABEL.to_owned(), FOR_ROOT, from)
        }
        (None, None) => {
            let (label, from) = as_in_pods(volume)?;
            (label, FOR_ALL, from)
        }
    };
    Some(DiskSource::Files { label, mode, from })
}

/// What pods have as volumes, too.
fn as_in_pods(volume: &Volume) -> Option<(String, FilesSource)> {
    let label = |label: &Option<String>| {
        let given = label.clone().filter(|label| !label.is_empty());
        given.unwrap_or_else(|| DEFAULT_LABEL.to_owned())
    };
    if let Some(map) = &volume.config_map {
        let (name, optional) = (map.name.clone()?, map.optional.unwrap_or(false));
        return Some((
            label(&map.volume_label),
            FilesSource::ConfigMap { name, optional },
        ));
    }
    if let Some(secret) = &volume.secret {
        let (name, optional) = (secret.secret_name.clone()?, secret.optional.unwrap_or(false));
        return Some((
            label(&secret.volume_label),
            FilesSource::Secret { name, optional },
        ));
    }
    if let Some(account) = &volume.service_account {
        let name = account.service_account_name.clone()?;
        return Some((label(&None), FilesSource::ServiceAccount { name }));
    }
    let api = volume.downward_api.as_ref()?;
    let from = FilesSource::DownwardApi(api.fields.clone());
    Some((label(&api.volume_label), from))
}

fn whole_sectors(capacity: &Quantity, path: &Path) -> Result<u64, Cause> {
    let bytes = capacity.bytes().map_err(|error| path.invalid(error))?;
    let whole = bytes
        .checked_next_multiple_of(SECTOR)
        .filter(|bytes| *bytes <= MAX_CAPACITY);
    whole.ok_or_else(|| path.invalid("is more than 16Ti"))
}
