//! The one folder where everything that is fetched or built outside cargo is kept.
//!
//! An entry is a folder named after what it holds and the hash of how it was made, so a changed recipe gives a new
//! entry and never a stale one. It is built beside its final place and renamed into it, under a lock: a killed
//! run leaves no half entry, and two processes that want the same entry build it once.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// How much of a recipe's hash stands in an entry's name.
const KEY_BYTES: usize = 12;

/// The cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens `$RVM_CACHE`, else `rvm` in the user's cache folder, and makes it where it is missing.
    pub fn open() -> Result<Self> {
        let named = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = match (named("RVM_CACHE"), named("XDG_CACHE_HOME"), named("HOME")) {
            (Some(root), _, _) => root,
            (None, Some(caches), _) => caches.join("rvm"),
            (None, None, Some(home)) => home.join(".cache/rvm"),
            (None, None, None) => bail!("no cache folder: set RVM_CACHE or HOME"),
        };
        Self::at(&root)
    }

    /// Opens the cache in `root`.
    pub fn at(root: &Path) -> Result<Self> {
        fs::create_dir_all(root)
            .with_context(|| format!("cannot make the cache folder {}", root.display()))?;
        let root = root
            .canonicalize()
            .with_context(|| format!("cannot find {}", root.display()))?;
        Ok(Self { root })
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The entry `name` made as `key` says: found, or built by `build` in the folder it is given.
    pub fn entry(&self, name: &str, key: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        self.slow_entry(name, key, Duration::ZERO, build)
    }

    /// As [`Cache::entry`], for one that takes long enough that people want to know how long.
    pub fn slow_entry(
        &self,
        name: &str,
        key: &str,
        takes: Duration,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let full = format!("{name}-{}", short_hash(key));
        let place = self.root.join(&full);
        if place.is_dir() {
            return Ok(place);
        }
        let _lock = self.lock(&full)?;
        if place.is_dir() {
            return Ok(place);
        }
        announce(name, takes);
        let half = self.root.join(format!(".{full}.half"));
        remove_if_there(&half)?;
        fs::create_dir(&half).with_context(|| format!("cannot make {}", half.display()))?;
        if let Err(error) = build(&half) {
            let _ = fs::remove_dir_all(&half);
            return Err(error.context(format!("cannot build {name}")));
        }
        fs::rename(&half, &place).with_context(|| format!("cannot finish {}", place.display()))?;
        Ok(place)
    }

    /// Takes the lock `name` of this cache until the result is dropped.
    pub fn lock(&self, name: &str) -> Result<File> {
        let path = self.root.join(format!(".{name}.lock"));
        let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }
}

/// SHA-256 of `bytes` in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file in hexadecimal: what makes a built file part of an entry's key.
pub fn sha256_of(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(sha256(&bytes))
}

fn short_hash(key: &str) -> String {
    hex(&Sha256::digest(key.as_bytes())[..KEY_BYTES])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn remove_if_there(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn announce(name: &str, takes: Duration) {
    let mut err = std::io::stderr();
    let _ = match takes.as_secs() {
        0 => writeln!(err, "building {name} ..."),
        seconds => writeln!(err, "building {name} (about {seconds} s) ..."),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        (folder, cache)
    }

    #[test]
    fn an_entry_is_built_once_for_one_key_and_anew_for_another() {
        let (_folder, cache) = cache();
        let write = |text: &'static str| move |dir: &Path| Ok(fs::write(dir.join("f"), text)?);
        let first = cache.entry("thing", "v1", write("one")).unwrap();
        let again = cache
            .entry("thing", "v1", |_| bail!("must not be built again"))
            .unwrap();
        let other = cache.entry("thing", "v2", write("two")).unwrap();
        assert_eq!(first, again);
        assert_eq!(fs::read_to_string(first.join("f")).unwrap(), "one");
        assert_eq!(fs::read_to_string(other.join("f")).unwrap(), "two");
    }

    #[test]
    fn a_failed_build_leaves_no_entry_and_the_next_one_starts_clean() {
        let (_folder, cache) = cache();
        let failed = cache.entry("thing", "v1", |dir| {
            fs::write(dir.join("half"), "")?;
            bail!("no network")
        });
        assert_eq!(
            format!("{:#}", failed.unwrap_err()),
            "cannot build thing: no network"
        );
        let place = cache.entry("thing", "v1", |_| Ok(())).unwrap();
        assert_eq!(fs::read_dir(place).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_left_is_thrown_away() {
        let (_folder, cache) = cache();
        let half = cache.root().join(format!(".thing-{}.half", short_hash("v1")));
        fs::create_dir_all(half.join("junk")).unwrap();
        let place = cache.entry("thing", "v1", |_| Ok(())).unwrap();
        assert_eq!(fs::read_dir(place).unwrap().count(), 0);
        assert!(!half.exists());
    }

    #[test]
    fn two_threads_that_want_one_entry_build_it_once() {
        let (_folder, cache) = cache();
        let built = std::sync::atomic::AtomicU32::new(0);
        let want = || {
            cache.entry("thing", "v1", |_| {
                built.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(50));
                Ok(())
            })
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(want);
            want().unwrap();
            other.join().unwrap().unwrap();
        });
        assert_eq!(built.into_inner(), 1);
    }

    #[test]
    fn hashes_are_those_everybody_computes() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(sha256_of(file.path()).unwrap(), empty);
    }
}
