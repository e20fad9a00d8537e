//! Pulled images on disk, by what they are made of.
//!
//! ```text
//!   <state>/images/blobs/sha256/HEX   a blob: whole and checked, or not there
//!                 /partial/HEX        what has arrived of one; locked by the process that fetches it
//!                 /names/HEX.json     an image's name, and the manifest that it led to
//!                 /lock               shared by all who fetch or read, alone for who removes
//! ```
//!
//! A blob gets its name by a rename, after its last byte was checked and written: a process that is killed leaves a partial
//! file, which the next one goes on with. What a machine boots is made from the blobs and kept elsewhere, so no blob is
//! needed for a machine to run.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::layout::{Image, Layout, hex};

/// Longest record of a name.
const MAX_RECORD: u64 = 64 << 10;

/// How long a part of a blob is kept that nobody went on with.
const PARTS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Others may not read images that were fetched with a secret.
const MODE: u32 = 0o700;

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the image store '{path}' cannot be used")]
pub struct StoreError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The images of this node that came from registries.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// What an image's name led to when it was last asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The image's full name.
    pub image: String,
    /// Its manifest for riscv64: sha256, in hex.
    pub digest: String,
    /// The manifest's size.
    pub size: u64,
    /// The size of all its layers, as they are fetched.
    pub bytes: u64,
}

/// While it is there, nothing is removed from the store.
#[derive(Debug)]
pub struct InUse {
    _lock: File,
}

/// While it is there, nobody fetches into the store or reads from it.
#[derive(Debug)]
pub struct Alone {
    _lock: File,
}

/// A blob that is being fetched, by us alone.
#[derive(Debug)]
pub struct Partial {
    /// What has arrived; written at its end.
    pub file: File,
    path: PathBuf,
    blob: PathBuf,
}

// === impl Store ===

impl Store {
    /// Opens the store below a folder, and makes it if it is not there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let store = Self { dir: dir.to_owned() };
        for folder in ["blobs/sha256", "partial", "names"] {
            let made = DirBuilder::new()
                .recursive(true)
                .mode(MODE)
                .create(dir.join(folder));
            made.map_err(|error| store.failed(error))?;
        }
        Ok(store)
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The blobs, as a layout without an index.
    pub fn layout(&self) -> Layout {
        Layout {
            dir: self.dir.clone(),
            tag: None,
        }
    }

    /// Keeps everything there until what is returned is dropped. Blocks while something is removed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn in_use(&self) -> Result<InUse, StoreError> {
        let lock = self.lock_file().map_err(|error| self.failed(error))?;
        let locked = flock(&lock, FlockOperation::LockShared);
        locked.map_err(|error| self.failed(error.into()))?;
        Ok(InUse { _lock: lock })
    }

    /// The image that a name last led to, if all of it is here.
    pub fn find(&self, image: &str) -> Option<(Record, Image)> {
        let path = self.name(image);
        let record = read_record(&path).filter(|record| record.image == image)?;
        let found = self.whole(&record)?;
        // Who makes room sees that it was asked for.
        let touched = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        touched
            .inspect_err(|error| tracing::debug!(image, %error, "its last use is not noted"))
            .ok();
        Some((record, found))
    }

    fn whole(&self, record: &Record) -> Option<Image> {
        let found = self.layout().image_at(&record.digest, record.size).ok()?;
        let here = |layer: &super::layout::Layer| self.has_blob(layer.digest(), layer.size());
        found.layers.iter().all(here).then_some(found)
    }

    /// Notes what a name led to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn record(&self, record: &Record) -> Result<(), StoreError> {
        let json = serde_json::to_vec(record).map_err(|error| self.failed(error.into()))?;
        self.write(&self.name(&record.image), &json)
    }

    /// Whether a blob is here.
    pub fn has_blob(&self, digest: &str, size: u64) -> bool {
        fs::metadata(self.blob(digest)).is_ok_and(|file| file.is_file() && file.len() == size)
    }

    /// A small blob whose digest was checked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put(&self, digest: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(&self.blob(digest), bytes)
    }

    /// A small blob that is here.
    pub fn get(&self, digest: &str, size: u64) -> Option<Vec<u8>> {
        self.has_blob(digest, size)
            .then(|| fs::read(self.blob(digest)).ok())?
    }

    /// Takes a blob to be fetched. Blocks while another process fetches it, and is nothing if it is here then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn partial(&self, digest: &str, size: u64) -> Result<Option<Partial>, StoreError> {
        let path = self.dir.join("partial").join(digest);
        loop {
            let file = File::options().create(true).append(true).read(true).open(&path);
            let file = file.map_err(|error| self.failed(error))?;
            flock(&file, FlockOperation::LockExclusive).map_err(|error| self.failed(error.into()))?;
            if self.has_blob(digest, size) {
                // Ours is then a name that nobody needs, or none at all.
                remove(&path).map_err(|error| self.failed(error))?;
                return Ok(None);
            }
            if is_same(&file, &path) {
                let blob = self.blob(digest);
                return Ok(Some(Partial { file, path, blob }));
            }
        }
    }

    /// Takes the store for who removes something. Nothing while it is in use.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alone(&self) -> Result<Option<Alone>, StoreError> {
        let lock = self.lock_file().map_err(|error| self.failed(error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Alone { _lock: lock })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(self.failed(error.into())),
        }
    }

    /// The images that are here: what their names led to, their bytes, and when they were last asked for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all(&self) -> Result<Vec<(Record, u64, SystemTime)>, StoreError> {
        let names = files(&self.dir.join("names")).map_err(|error| self.failed(error))?;
        let whole = names.into_iter().filter_map(|(path, asked_for)| {
            let record = read_record(&path)?;
            let image = self.whole(&record)?;
            let bytes = blobs(&image, &record).iter().map(|(_, size)| size).sum();
            Some((record, bytes, asked_for))
        });
        Ok(whole.collect())
    }

    /// Forgets images, with the blobs that no other image has; returns the bytes that are free then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget(&self, _: &Alone, which: &dyn Fn(&Record) -> bool) -> Result<u64, StoreError> {
        let forget = || {
            let names = files(&self.dir.join("names"))?.into_iter();
            let mut forgotten = names.filter(|(path, _)| read_record(path).is_some_and(|is| which(&is)));
            forgotten.try_for_each(|(path, _)| remove(&path))?;
            self.remove_all_but(&self.keep_newest(u64::MAX)?)
        };
        forget().map_err(|error| self.failed(error))
    }

    /// Removes the images that were asked for longest ago, until all of them together have at most `limit` bytes. Does nothing
    /// while the store is in use.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn make_room(&self, limit: u64, now: SystemTime) -> Result<(), StoreError> {
        let failed = |error| self.failed(error);
        let Some(_alone) = self.alone()? else {
            return Ok(());
        };
        let kept = self.keep_newest(limit);
        kept.and_then(|kept| self.remove_all_but(&kept)).map_err(failed)?;
        for (path, asked_for) in files(&self.dir.join("partial")).map_err(failed)? {
            if now.duration_since(asked_for).is_ok_and(|age| age > PARTS_KEPT) {
                remove(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Removes all blobs but these; returns the bytes that are free then.
    fn remove_all_but(&self, kept: &HashSet<String>) -> io::Result<u64> {
        let mut freed = 0;
        for (path, _) in files(&self.dir.join("blobs/sha256"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !kept.contains(name.as_ref()) {
                freed += fs::metadata(&path)?.len();
                remove(&path)?;
                tracing::info!(blob = %name, "removed from the image store");
            }
        }
        Ok(freed)
    }

    /// Forgets the names that do not fit any more; returns the blobs of those that do.
    fn keep_newest(&self, limit: u64) -> io::Result<HashSet<String>> {
        let mut names = files(&self.dir.join("names"))?;
        names.sort_by_key(|(_, asked_for)| std::cmp::Reverse(*asked_for));
        let (mut kept, mut bytes) = (HashSet::new(), 0_u64);
        for (path, _) in names {
            let record = read_record(&path);
            let image = record.and_then(|record| Some((self.whole(&record)?, record)));
            let blobs = image
                .map(|(image, record)| blobs(&image, &record))
                .unwrap_or_default();
            let more: u64 = blobs
                .iter()
                .filter(|(digest, _)| !kept.contains(digest))
                .map(|(_, size)| size)
                .sum();
            if blobs.is_empty() || bytes.saturating_add(more) > limit {
                remove(&path)?;
                continue;
            }
            bytes += more;
            kept.extend(blobs.into_iter().map(|(digest, _)| digest));
        }
        Ok(kept)
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest)
    }

    fn name(&self, image: &str) -> PathBuf {
        let mut sha = Sha256::new();
        sha.update(image);
        self.dir.join("names").join(format!("{}.json", hex(sha)))
    }

    fn lock_file(&self) -> io::Result<File> {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.dir.join("lock"))
    }

    /// Writes a file that is there whole or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let write = || {
            let mut fresh = tempfile::NamedTempFile::new_in(self.dir.join("partial"))?;
            fresh.write_all(bytes)?;
            fresh.as_file().sync_all()?;
            fresh.persist(path).map_err(|failed| failed.error)?;
            sync_folder(path)
        };
        write().map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> StoreError {
        StoreError {
            path: self.dir.clone(),
            source,
        }
    }
}

// === impl Partial ===

impl Partial {
    /// Makes it the blob: all of it is here and was checked.
    ///
    /// # Errors
    /// The file system's.
    pub fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.blob)?;
        sync_folder(&self.blob)
    }
}

/// All blobs of an image: digests and sizes.
fn blobs(image: &Image, record: &Record) -> Vec<(String, u64)> {
    let layers = image
        .layers
        .iter()
        .map(|layer| (layer.digest().to_owned(), layer.size()));
    let documents = [
        (record.digest.clone(), record.size),
        (image.config.clone(), image.config_size),
    ];
    layers.chain(documents).collect()
}

fn read_record(path: &Path) -> Option<Record> {
    let small = fs::metadata(path).is_ok_and(|file| file.len() <= MAX_RECORD);
    small.then(|| serde_json::from_slice(&fs::read(path).ok()?).ok())?
}

/// The files of a folder, and when each was last touched.
fn files(folder: &Path) -> io::Result<Vec<(PathBuf, SystemTime)>> {
    let entries = fs::read_dir(folder)?.map(|entry| {
        let entry = entry?;
        Ok((entry.path(), entry.metadata()?.modified()?))
    });
    entries.collect()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether the open file is the one of this name, and not one that was renamed or removed while we waited for it.
fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
