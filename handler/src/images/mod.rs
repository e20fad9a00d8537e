//! What a machine boots from an OCI image: our kernel, and our init followed by the image's own root file system.
//!
//! ```text
//!   image name ──mirror──► OCI layout on disk ───┐
//!        └──pull──► registry ──► store ──────────┴─layout──► layers ──root_cpio──► root archive ┐
//!   guests/Image, guests/init.cpio ──────────────────────────────────────────────► init archive ┴► <state>/roots/….cpio
//! ```
//!
//! The result is kept by what it was made from (image digest, init), written beside its place and then renamed, so
//! a killed handler leaves no half of one. One that no machine uses is kept for an hour, for the next machine of its image
//! ([`Images::sweep`]). All of this but [`Images::pull`] blocks: it is called where blocking is allowed.

pub mod cpio;
mod digests;
pub mod kept;
pub mod labels;
pub mod layer;
pub mod layout;
pub mod mirror;
pub mod pull;
pub mod qcow2;
pub mod registries;
pub mod root_cpio;
#[cfg(test)]
mod sample;
pub mod store;
pub mod tree;
pub mod zstd;

use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rvmm_spec::DiskFormat;
use sha2::{Digest, Sha256};

use digests::Digests;
use layout::{Image, Layout};
pub use mirror::{Mirror, Mirrors};
use pull::{PullError, Puller, Told, Wish};
use root_cpio::{Root, RootError};
use store::{InUse, Store, StoreError};

/// Changes when the archive made from the same image and init would differ.
const FORMAT: &str = "v2";

/// Archives that are not finished start with this.
const UNFINISHED: &str = ".new-";

/// How long a file that no machine uses is kept after it was last asked for. Longer than it takes from there to the
/// run directory that names it.
const KEPT: Duration = Duration::from_secs(60 * 60);

/// Linux finds the second archive at a multiple of 4; whole blocks are tidier.
const ALIGNMENT: u64 = 512;

/// The files that a guest boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFiles {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
}

/// A disk that machines share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskImage {
    /// The file.
    pub path: PathBuf,
    /// What the file is.
    pub format: DiskFormat,
    /// Bytes of the disk in it.
    pub size: u64,
}

/// The image cannot be booted from.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Neither a layout stands for it nor was it pulled.
    #[error("image '{0}' is not on this node")]
    NotHere(String),
    /// No registry gives it.
    #[error("Failed to pull image \"{0}\"")]
    Pull(String, #[source] PullError),
    /// Pulled images cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Where it should be is nothing usable.
    #[error("image '{0}'")]
    Root(String, #[source] RootError),
    /// Its disk is not one for a guest.
    #[error("image '{0}'")]
    Disk(String, #[source] qcow2::Qcow2Error),
    /// No kernel and init to boot it with.
    #[error("there is no guest kernel and init on this node; start rvm-handler with --guests DIR")]
    NoGuests,
    /// The kernel or init is not there.
    #[error("'{0}' is needed to boot an image")]
    Guest(PathBuf, #[source] io::Error),
    /// The cache cannot be written.
    #[error("the image cache '{0}' cannot be used")]
    Cache(PathBuf, #[source] io::Error),
}

/// The images of this node.
#[derive(Debug)]
pub struct Images {
    mirrors: Mirrors,
    guests: Option<PathBuf>,
    cache: PathBuf,
    store: Store,
    puller: Option<Puller>,
    /// Most bytes of pulled images and of what was made from them.
    limit: u64,
    /// One at a time: two machines of the same image then share the work.
    building: Mutex<()>,
    /// What the init is, for each start to tell whether an archive has it.
    init: Digests,
}

// === impl Images ===

impl Images {
    /// Images from these mirrors, booted with the kernel and init in `guests`, kept below `state`.
    ///
    /// # Errors
    /// [`ImageError::Cache`] when the cache cannot be made.
    pub fn new(mirrors: Mirrors, guests: Option<PathBuf>, state: &Path) -> Result<Self, ImageError> {
        let cache = state.join("roots");
        let failed = |error| ImageError::Cache(cache.clone(), error);
        fs::create_dir_all(&cache).map_err(failed)?;
        for entry in fs::read_dir(&cache).map_err(failed)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(Self {
            mirrors,
            guests,
            cache,
            store: Store::open(&state.join("images"))?,
            puller: None,
            limit: u64::MAX,
            building: Mutex::new(()),
            init: Digests::default(),
        })
    }

    /// With images from registries, fetched by this puller; together with what is made from them they are to have `limit` bytes.
    #[must_use]
    pub fn pulled_by(self, puller: Puller, limit: u64) -> Self {
        Self {
            puller: Some(puller),
            limit,
            ..self
        }
    }

    /// Whether nobody has to be asked for an image: a layout on this disk stands for it.
    pub fn is_mirrored(&self, image: &str) -> bool {
        self.puller.is_none() || self.mirrors.find(image).is_some()
    }

    /// Gets an image that comes from a registry. Nothing of it is removed until what is returned is dropped.
    ///
    /// # Errors
    /// Any [`ImageError`].
    pub async fn pull(&self, wish: &Wish, tell: &(dyn Fn(Told) + Sync)) -> Result<Option<InUse>, ImageError> {
        match &self.puller {
            Some(puller) if !self.is_mirrored(&wish.image) => {
                let pulled = puller.pull(&self.store, &self.mirrors, wish, tell).await;
                Ok(Some(
                    pulled.map_err(|error| ImageError::Pull(wish.image.clone(), error))?,
                ))
            }
            _ => Ok(None),
        }
    }

    /// An image as root file system: our kernel, and our init followed by the image's files.
    ///
    /// # Errors
    /// Any [`ImageError`].
    pub fn root_boot(&self, image: &str) -> Result<BootFiles, ImageError> {
        let source = self.find(image)?;
        let guests = self.guests.as_deref().ok_or(ImageError::NoGuests)?;
        let (kernel, init) = (guests.join("Image"), guests.join("init.cpio"));
        let no_guest = |path: &PathBuf, error| ImageError::Guest(path.clone(), error);
        fs::metadata(&kernel).map_err(|error| no_guest(&kernel, error))?;
        let init_digest = self.init.of(&init).map_err(|error| no_guest(&init, error))?;
        let name = format!("{}-{init_digest}-{FORMAT}.cpio", source.found.digest);
        let initrd = self.made(&name, |out| {
            copy_aligned(&init, out).map_err(|error| no_guest(&init, error))?;
            source
                .unpack(&self.cache)?
                .write(out)
                .map_err(|error| source.bad(error))
        })?;
        Ok(BootFiles {
            kernel,
            initrd: Some(initrd),
        })
    }

    /// What an image asks of the processors, as in `v=on,zbb=off`; see [`labels::CPU`].
    ///
    /// # Errors
    /// Any [`ImageError`].
    pub fn cpu_features(&self, image: &str) -> Result<Option<String>, ImageError> {
        let source = self.find(image)?;
        let features = labels::cpu_features(&source.layout, &source.found);
        features.map_err(|error| source.bad(error.into()))
    }

    /// A kernel and maybe an initial RAM disk that are files of an image.
    ///
    /// # Errors
    /// Any [`ImageError`].
    pub fn kernel_boot(
        &self,
        image: &str,
        kernel: &str,
        initrd: Option<&str>,
    ) -> Result<BootFiles, ImageError> {
        let source = self.find(image)?;
        let file = |path: &str| {
            let mut sha = Sha256::new();
            sha.update(path);
            let name = format!("{}-{}-{FORMAT}.file", source.found.digest, layout::hex(sha));
            let write = |out: &mut File| {
                source
                    .unpack(&self.cache)?
                    .write_file(path, out)
                    .map_err(|error| source.bad(error))
            };
            self.made(&name, write)
        };
        Ok(BootFiles {
            kernel: file(kernel)?,
            initrd: initrd.map(file).transpose()?,
        })
    }

    /// The disk in an image: the only file under `/disk`, or the one at this path. It is shared by all machines of the
    /// image, so each writes elsewhere. What it is, is seen from its beginning: no guest has written there.
    ///
    /// # Errors
    /// Any [`ImageError`].
    pub fn disk(&self, image: &str, path: Option<&str>) -> Result<DiskImage, ImageError> {
        let source = self.find(image)?;
        let no_cache = |error| ImageError::Cache(self.cache.clone(), error);
        let mut sha = Sha256::new();
        sha.update(path.unwrap_or(root_cpio::DISK_FOLDER));
        let name = format!("{}-{}-{FORMAT}.disk", source.found.digest, layout::hex(sha));
        let write = |out: &mut File| {
            let mut root = source.unpack(&self.cache)?;
            root.write_disk(path, &mut *out)
                .map_err(|error| source.bad(error))?;
            match format_of(out).map_err(no_cache)? {
                DiskFormat::Qcow2 => {
                    qcow2::check(out).map_err(|error| ImageError::Disk(image.to_owned(), error))
                }
                DiskFormat::Raw => Ok(()),
            }
        };
        let path = self.made(&name, write)?;
        let file = File::open(&path).map_err(no_cache)?;
        let format = format_of(&file).map_err(no_cache)?;
        let size = match format {
            DiskFormat::Raw => file.metadata().map_err(no_cache)?.len(),
            DiskFormat::Qcow2 => {
                qcow2::size(&file).map_err(|error| ImageError::Disk(image.to_owned(), error))?
            }
        };
        Ok(DiskImage { path, format, size })
    }

    /// Removes what was made, was not asked for lately, and stands in none of the machines' specs; and of the pulled images those
    /// that were asked for longest ago, where there are too many.
    ///
    /// # Errors
    /// [`ImageError::Cache`].
    pub fn sweep(&self, specs: &[String], now: SystemTime) -> Result<(), ImageError> {
        let failed = |error| ImageError::Cache(self.cache.clone(), error);
        let _one_at_a_time = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let mut made = 0_u64;
        for entry in fs::read_dir(&self.cache).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let file = entry.metadata().map_err(failed)?;
            let (asked_for, size) = (file.modified().map_err(failed)?, file.len());
            let lately = now.duration_since(asked_for).map_or(true, |age| age < KEPT);
            // Names are digests, so one that is found in a spec is there for itself.
            if !lately && !specs.iter().any(|spec| spec.contains(&name)) {
                fs::remove_file(entry.path()).map_err(failed)?;
                tracing::info!(
                    name,
                    "no machine uses it any more, it is removed from the image cache"
                );
            } else {
                made += size;
            }
        }
        Ok(self.store.make_room(self.limit.saturating_sub(made), now)?)
    }

    fn find<'a>(&self, image: &'a str) -> Result<Source<'a>, ImageError> {
        if let Some(layout) = self.mirrors.find(image) {
            let found = layout
                .resolve()
                .map_err(|error| ImageError::Root(image.to_owned(), error.into()))?;
            return Ok(Source {
                name: image,
                layout: layout.clone(),
                found,
            });
        }
        let name = self.mirrors.sources(image).map(|(name, _)| name);
        let pulled = name.ok().and_then(|name| self.store.find(&name));
        let (_, found) = pulled.ok_or_else(|| ImageError::NotHere(image.to_owned()))?;
        Ok(Source {
            name: image,
            layout: self.store.layout(),
            found,
        })
    }

    /// A file of the cache, made if it is not there.
    fn made(
        &self,
        name: &str,
        write: impl FnOnce(&mut File) -> Result<(), ImageError>,
    ) -> Result<PathBuf, ImageError> {
        let path = self.cache.join(name);
        let no_cache = |error| ImageError::Cache(self.cache.clone(), error);
        // Poisoned by a panic elsewhere: there is no state behind this lock that could be half done.
        let _one_at_a_time = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        if path.exists() {
            // Whoever sweeps sees that it was asked for.
            let file = File::open(&path).map_err(no_cache)?;
            file.set_modified(SystemTime::now()).map_err(no_cache)?;
        } else {
            let fresh = tempfile::Builder::new()
                .prefix(UNFINISHED)
                .tempfile_in(&self.cache);
            let mut fresh = fresh.map_err(no_cache)?;
            write(fresh.as_file_mut())?;
            fresh.as_file().sync_all().map_err(no_cache)?;
            fresh.persist(&path).map_err(|failed| no_cache(failed.error))?;
        }
        Ok(path)
    }
}

/// An image that was found.
struct Source<'a> {
    name: &'a str,
    layout: Layout,
    found: Image,
}

// === impl Source ===

impl Source<'_> {
    fn unpack(&self, scratch: &Path) -> Result<Root, ImageError> {
        Root::unpack(&self.layout, &self.found, scratch).map_err(|error| self.bad(error))
    }

    fn bad(&self, error: RootError) -> ImageError {
        ImageError::Root(self.name.to_owned(), error)
    }
}

/// What a disk is, by its beginning.
fn format_of(disk: &File) -> io::Result<DiskFormat> {
    Ok(if qcow2::is_one(disk)? {
        DiskFormat::Qcow2
    } else {
        DiskFormat::Raw
    })
}

fn copy_aligned(from: &Path, to: &mut File) -> io::Result<()> {
    let copied = io::copy(&mut File::open(from)?, to)?;
    to.set_len(copied.next_multiple_of(ALIGNMENT))?;
    to.seek(io::SeekFrom::End(0))?;
    Ok(())
}

#[cfg(test)]
mod tests;
