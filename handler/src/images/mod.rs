//! What a machine boots from an OCI image: our kernel, and our init followed by the image's own root file system.
//!
//! ```text
//!   image name ──mirror──► OCI layout on disk ──layout──► layers ──root_cpio──► root archive ┐
//!   guests/Image, guests/init.cpio ───────────────────────────────────────────► init archive ┴► <state>/roots/….cpio
//! ```
//!
//! The result is kept by what it was made from (image digest, init), written beside its place and then renamed, so
//! a killed handler leaves no half of one. One that no machine uses is kept for an hour, for the next machine of its image
//! ([`Images::sweep`]). All of this blocks: it is called where blocking is allowed.

pub mod cpio;
pub mod layer;
pub mod layout;
pub mod mirror;
pub mod root_cpio;
#[cfg(test)]
mod sample;
pub mod tree;

use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use layout::{Image, Layout};
pub use mirror::{Mirror, Mirrors};
use root_cpio::{Root, RootError};

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

/// The image cannot be booted from.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nothing says where it is.
    #[error(
        "image '{0}' has no mirror on this node and pulling from registries is not supported yet; start rvm-handler with --mirror '{0}=oci:DIR'"
    )]
    NoMirror(String),
    /// Where it should be is nothing usable.
    #[error("image '{0}'")]
    Root(String, #[source] RootError),
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
    /// One at a time: two machines of the same image then share the work.
    building: Mutex<()>,
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
            building: Mutex::new(()),
        })
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
        let init_digest = digest_of(&init).map_err(|error| no_guest(&init, error))?;
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

    /// Removes what was made, was not asked for lately, and stands in none of the machines' specs.
    ///
    /// # Errors
    /// [`ImageError::Cache`].
    pub fn sweep(&self, specs: &[String], now: SystemTime) -> Result<(), ImageError> {
        let failed = |error| ImageError::Cache(self.cache.clone(), error);
        let _one_at_a_time = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in fs::read_dir(&self.cache).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let asked_for = entry
                .metadata()
                .and_then(|file| file.modified())
                .map_err(failed)?;
            let lately = now.duration_since(asked_for).map_or(true, |age| age < KEPT);
            // Names are digests, so one that is found in a spec is there for itself.
            if !lately && !specs.iter().any(|spec| spec.contains(&name)) {
                fs::remove_file(entry.path()).map_err(failed)?;
                tracing::info!(
                    name,
                    "no machine uses it any more, it is removed from the image cache"
                );
            }
        }
        Ok(())
    }

    fn find<'a>(&'a self, image: &'a str) -> Result<Source<'a>, ImageError> {
        let layout = self
            .mirrors
            .find(image)
            .ok_or_else(|| ImageError::NoMirror(image.to_owned()))?;
        let found = layout
            .resolve()
            .map_err(|error| ImageError::Root(image.to_owned(), error.into()))?;
        Ok(Source {
            name: image,
            layout,
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
    layout: &'a Layout,
    found: Image,
}

// === impl Source ===

impl Source<'_> {
    fn unpack(&self, scratch: &Path) -> Result<Root, ImageError> {
        Root::unpack(self.layout, &self.found, scratch).map_err(|error| self.bad(error))
    }

    fn bad(&self, error: RootError) -> ImageError {
        ImageError::Root(self.name.to_owned(), error)
    }
}

fn digest_of(path: &Path) -> io::Result<String> {
    let mut sha = Sha256::new();
    io::copy(&mut File::open(path)?, &mut HashWriter(&mut sha))?;
    Ok(layout::hex(sha))
}

/// Lets `io::copy` feed a hash.
struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn copy_aligned(from: &Path, to: &mut File) -> io::Result<()> {
    let copied = io::copy(&mut File::open(from)?, to)?;
    to.set_len(copied.next_multiple_of(ALIGNMENT))?;
    to.seek(io::SeekFrom::End(0))?;
    Ok(())
}

#[cfg(test)]
mod tests;
