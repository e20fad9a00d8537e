//! Digests of files of this node that seldom change: each is read once, and again when it is another file or was written.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::layout::hex;

/// What tells that a file is what it was: device, number, size, and when it was last written and changed, in nanoseconds.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// The digest of the file that was last asked for.
#[derive(Debug, Default)]
pub struct Digests(Mutex<Option<(Stamp, String)>>);

// === impl Digests ===

impl Digests {
    /// The sha256 of a file, in hex.
    ///
    /// # Errors
    /// The file system's.
    pub fn of(&self, path: &Path) -> io::Result<String> {
        let mut file = File::open(path)?;
        let before = stamp(&file)?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, digest)) = &*known
            && *at == before
        {
            return Ok(digest.clone());
        }
        let mut sha = Sha256::new();
        io::copy(&mut file, &mut HashWriter(&mut sha))?;
        let digest = hex(sha);
        // One that is written meanwhile is read anew the next time.
        *known = (stamp(&file)? == before).then(|| (before, digest.clone()));
        Ok(digest)
    }
}

fn stamp(file: &File) -> io::Result<Stamp> {
    let about = file.metadata()?;
    Ok((
        about.dev(),
        about.ino(),
        about.len(),
        (about.mtime(), about.mtime_nsec()),
        (about.ctime(), about.ctime_nsec()),
    ))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_was_replaced_or_grew_has_another_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("init");
        let digests = Digests::default();
        fs::write(&path, "one").unwrap();
        let one = digests.of(&path).unwrap();
        assert_eq!(digests.of(&path).unwrap(), one);
        fs::write(folder.path().join("new"), "two").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        let two = digests.of(&path).unwrap();
        assert_ne!(two, one);
        fs::write(&path, "longer").unwrap();
        assert_ne!(digests.of(&path).unwrap(), two);
    }
}
