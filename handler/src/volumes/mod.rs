//! From what a VMI says of its volumes to the files that its disks lie in.
//!
//! ```text
//!   DiskWish ──gather: ConfigMaps, Secrets, tokens──► Material ──make──┬─ emptyDisk       sparse    <state>/disks/<uid>/<volume>.raw
//!                                                              ├─ containerDisk   overlay   <state>/disks/<uid>/<volume>.qcow2, over the image's
//!                                                              ├─ claims          <state>/claims/<uid>/disk.img, or a PersistentVolume's (claims.rs)
//!                                                              ├─ hostDisk        the file itself (host_disk.rs)
//!                                                              └─ files           ISO 9660  <run>/<uid>/<volume>.iso
//! ```
//!
//! What lies in the state and run directories goes with the VMI. Images with what may be secret are in the run directory,
//! which is in RAM, and are readable by their owner alone.

pub mod affinity;
pub mod binder;
pub mod brought;
pub mod claims;
pub mod cloud_init;
pub mod downward;
pub mod host_disk;
pub mod iso;
pub mod objects;
pub mod overlay;

use std::path::{Path, PathBuf};

use kube::Client;
use rvm_types::VirtualMachineInstance;
use rvm_types::names::reasons;
use rvmm_spec::{Base, DiskFormat};

use crate::images::{DiskImage, ImageError, Images};
use crate::plan::Me;
use crate::process::{LayOutError, Machines};
use crate::translate::disks::{CacheWish, DiskSource, DiskWish, FilesSource, SECTOR};
use crate::vm::VmId;
use brought::PodFolder;
use claims::{Claim, ClaimError, Claims, Given};
use cloud_init::Identity;
use host_disk::{Allowed, HostDiskError};
use iso::{File, IsoError};
use objects::{ObjectError, Objects};

/// A volume cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("volume '{volume}' cannot be made")]
pub struct VolumeError {
    volume: String,
    #[source]
    why: Why,
}

/// Why a volume cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// Another object.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Its files do not fit onto a disk.
    #[error(transparent)]
    Iso(#[from] IsoError),
    /// The node's file.
    #[error(transparent)]
    HostDisk(#[from] HostDiskError),
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The claim's disk.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The disk's place.
    #[error(transparent)]
    LayOut(#[from] LayOutError),
    /// What cloud-init is told of the machine.
    #[error("the machine cannot be described")]
    Json(#[from] serde_json::Error),
}

// === impl VolumeError ===

impl VolumeError {
    /// In one word, for the VMI's condition.
    pub fn reason(&self) -> &'static str {
        match &self.why {
            Why::Image(_) => reasons::ERR_IMAGE_PULL,
            Why::Claim(error) => error.reason(),
            _ => reasons::FAILED_CREATE,
        }
    }
}

/// What was learnt for each disk.
pub type Material = Vec<Gathered>;

/// What the cluster says of a disk.
#[derive(Debug)]
pub enum Gathered {
    /// Nothing has to be asked for.
    Nothing,
    /// The files on it.
    Files(Vec<File>),
    /// Whose disk it is.
    Claim(Claim),
}

/// Where a disk lies, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFile {
    /// The file.
    pub path: PathBuf,
    /// What the file is.
    pub format: DiskFormat,
    /// What lies under it: only read, and others' too.
    pub base: Option<Base>,
    /// Past the page cache.
    pub direct: bool,
}

/// A file to be laid into a machine's run directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// Its name there.
    pub name: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// Asks the cluster for what the disks are made of, some of which a machine's pod may have.
///
/// # Errors
/// [`VolumeError`].
pub async fn gather(
    (client, claims, me): (&Client, &Claims, &Me),
    id: &VmId,
    vmi: &VirtualMachineInstance,
    wishes: &[DiskWish],
    pod: Option<&PodFolder>,
) -> Result<Material, VolumeError> {
    let objects = Objects::of(client, &id.namespace);
    let mut material = Vec::with_capacity(wishes.len());
    for wish in wishes {
        material.push(match &wish.source {
            DiskSource::Files { from, .. } => {
                let files = files(&objects, id, vmi, from).await;
                files.map(Gathered::Files).map_err(|why| failed(wish, why))?
            }
            DiskSource::Claim { name, over } => {
                let reads = *over || wish.read_only;
                let given = pod.map(|folder| Given {
                    folder,
                    volume: &wish.volume,
                });
                let claim = claims.find(client, id, (name, reads), me, given).await;
                let claim = claim.map_err(|why| failed(wish, why.into()))?;
                if *over && claim.is_in_container() {
                    return Err(failed(wish, ClaimError::NoBase(name.clone()).into()));
                }
                Gathered::Claim(claim)
            }
            _ => Gathered::Nothing,
        });
    }
    Ok(material)
}

fn failed(wish: &DiskWish, why: Why) -> VolumeError {
    VolumeError {
        volume: wish.volume.clone(),
        why,
    }
}

async fn files(
    objects: &Objects,
    id: &VmId,
    vmi: &VirtualMachineInstance,
    from: &FilesSource,
) -> Result<Vec<File>, Why> {
    let identity = || Identity {
        name: id.name.clone(),
        namespace: id.namespace.clone(),
        hostname: crate::translate::boot::hostname(vmi),
        uuid: vmi
            .spec
            .domain
            .firmware
            .as_ref()
            .and_then(|firmware| firmware.uuid.clone())
            .unwrap_or_else(|| id.uid.clone()),
    };
    let credentials = |way: fn(&rvm_types::config::PropagationMethod) -> bool| {
        let all = vmi.spec.access_credentials.iter();
        let by = all.filter(|one| {
            one.ssh_public_key
                .as_ref()
                .is_some_and(|key| way(&key.propagation_method))
        });
        by.collect()
    };
    Ok(match from {
        FilesSource::ConfigMap { name, optional } => objects.config_map(name, *optional).await?,
        FilesSource::Secret { name, optional } => objects.secret(name, *optional).await?,
        FilesSource::ServiceAccount { name } => objects.service_account(name).await?,
        FilesSource::DownwardApi(fields) => downward::files(vmi, fields),
        FilesSource::NoCloud(data) => {
            let keys = objects.keys(credentials(|way| way.no_cloud.is_some())).await?;
            cloud_init::no_cloud(&identity(), objects.cloud_init(data, keys).await?)?
        }
        FilesSource::ConfigDrive(data) => {
            let keys = objects
                .keys(credentials(|way| way.config_drive.is_some()))
                .await?;
            cloud_init::config_drive(&identity(), objects.cloud_init(data, keys).await?)?
        }
    })
}

/// What volumes are made with.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a> {
    /// Where machines' files lie.
    pub machines: &'a Machines,
    /// Where images come from.
    pub images: &'a Images,
    /// Where host disks may lie.
    pub host_disks: &'a Allowed,
    /// Where claims' disks lie.
    pub claims: &'a Claims,
}

// === impl Maker ===

impl Maker<'_> {
    /// Makes all disks of a machine, or finds those made before. The seeds are still to be written. Blocks.
    ///
    /// # Errors
    /// [`VolumeError`].
    pub fn make(
        &self,
        id: &VmId,
        wishes: &[DiskWish],
        material: Material,
    ) -> Result<(Vec<DiskFile>, Vec<Seed>), VolumeError> {
        let mut seeds = Vec::new();
        let mut disks = Vec::with_capacity(wishes.len());
        for (wish, gathered) in wishes.iter().zip(material) {
            let made = self.one(id, wish, &gathered, &mut seeds);
            disks.push(made.map_err(|why| failed(wish, why))?);
        }
        Ok((disks, seeds))
    }

    fn one(
        &self,
        id: &VmId,
        wish: &DiskWish,
        gathered: &Gathered,
        seeds: &mut Vec<Seed>,
    ) -> Result<DiskFile, Why> {
        let raw = |path| DiskFile {
            path,
            format: DiskFormat::Raw,
            base: None,
            direct: false,
        };
        let mut disk = match (&wish.source, gathered) {
            (DiskSource::Empty { capacity }, _) => {
                raw(self.machines.empty_disk(id, &wish.volume, *capacity)?)
            }
            (DiskSource::Container { image, path }, _) => {
                self.over(id, wish, self.images.disk(image, path.as_deref())?)?
            }
            (DiskSource::Host { path, create }, _) => raw(self.host_disks.disk(path, *create)?),
            (DiskSource::Claim { over, .. }, Gathered::Claim(claim)) => {
                let disk = self.claims.disk(claim, self.host_disks)?;
                if *over {
                    self.over(id, wish, disk)?
                } else {
                    raw(disk.path)
                }
            }
            (DiskSource::Claim { name, .. }, _) => return Err(ClaimError::Missing(name.clone()).into()),
            (DiskSource::Files { label, mode, .. }, gathered) => {
                let files = match gathered {
                    Gathered::Files(files) => files.as_slice(),
                    _ => &[],
                };
                let name = format!("{}.iso", wish.volume);
                let path = self.machines.folder(id).join(&name);
                seeds.push(Seed {
                    name,
                    content: iso::image(label, *mode, files)?,
                });
                // It is not there yet, and will be in RAM.
                return Ok(raw(path));
            }
        };
        // Not every file system can do without its cache.
        let under = disk.base.as_ref().map(|base| base.path.as_path());
        let of_claim = |path: &Path| match gathered {
            Gathered::Claim(claim) => claim.can_be_direct().unwrap_or_else(|| can_be_direct(path)),
            _ => can_be_direct(path),
        };
        let can = match under {
            None => of_claim(&disk.path),
            Some(under) => can_be_direct(&disk.path) && of_claim(under),
        };
        disk.direct = wish.cache == CacheWish::None && can;
        Ok(disk)
    }

    /// A disk that holds what a shared one does until the guest writes.
    fn over(&self, id: &VmId, wish: &DiskWish, shared: DiskImage) -> Result<DiskFile, Why> {
        // A guest sees whole sectors; what a file lacks of its last one reads as zeroes.
        let size = shared.size.next_multiple_of(SECTOR);
        Ok(DiskFile {
            path: self.machines.overlay(id, &wish.volume, size)?,
            format: DiskFormat::Qcow2,
            base: Some(Base {
                path: shared.path,
                format: shared.format,
            }),
            direct: false,
        })
    }
}

/// Whether a file can be read past the page cache.
fn can_be_direct(path: &Path) -> bool {
    use rustix::fs::{Mode, OFlags, open};
    open(
        path,
        OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .is_ok()
}
