//! The file of a flash bank: where a machine's firmware keeps its variables, and what that file is first made from.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::disk::lock;

/// Between two moments at which written variables are made to survive the host's fall. A guest that writes all the time
/// does not keep the host's disk busy.
const SYNC_PAUSE: Duration = Duration::from_secs(1);

/// Bytes that are copied at once.
const PIECE: usize = 256 << 10;

/// A bank's file, locked for as long as this lives.
#[derive(Debug)]
pub struct VarsFile {
    file: File,
    size: u64,
    synced: Option<Instant>,
    dirty: bool,
}

/// The file cannot hold a machine's variables.
#[derive(Debug, thiserror::Error)]
pub enum VarsError {
    /// Neither there nor anything to make it from.
    #[error("firmware variables '{}' do not exist, and no template is named to make them from", .0.display())]
    Missing(PathBuf),
    /// Missing, not readable, not writable.
    #[error("firmware variables '{}' cannot be opened", .0.display())]
    Open(PathBuf, #[source] io::Error),
    /// A copy could not be made.
    #[error("firmware variables '{}' cannot be made from '{}'", .0.display(), .1.display())]
    Make(PathBuf, PathBuf, #[source] io::Error),
    /// A folder, a pipe, a device.
    #[error("firmware variables '{}' are not in a file", .0.display())]
    Kind(PathBuf),
    /// Not a bank.
    #[error("firmware variables '{path}' have {have} bytes; a flash bank's file has {want}", path = .0.display(), have = .1, want = .2)]
    Size(PathBuf, u64, u64),
    /// Another machine has them.
    #[error("firmware variables '{}' are in use by another process", .0.display())]
    InUse(PathBuf),
}

/// Makes `file` from `template` where it does not exist. It is there as a whole, or not at all.
///
/// # Errors
/// When it is missing and cannot be made.
pub fn ensure(file: &Path, template: Option<&Path>, size: u64) -> Result<(), VarsError> {
    if fs::exists(file).map_err(|error| VarsError::Open(file.to_owned(), error))? {
        return Ok(());
    }
    let template = template.ok_or_else(|| VarsError::Missing(file.to_owned()))?;
    let source = open(template, false)?;
    check_size(&source, template, size)?;
    let failed = |error| VarsError::Make(file.to_owned(), template.to_owned(), error);
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let partial = file.with_file_name(name);
    let made = copy(&source, &partial, size).and_then(|()| fs::rename(&partial, file));
    made.inspect_err(|_| drop(fs::remove_file(&partial)))
        .map_err(failed)
}

/// Leaves holes where the source has zeros: most of a bank is.
fn copy(source: &File, to: &Path, size: u64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let target = options.write(true).create_new(true).mode(0o600).open(to)?;
    target.set_len(size)?;
    for_each_piece(source, size, |offset, bytes| target.write_all_at(bytes, offset))?;
    target.sync_all()
}

/// Reads a file of `size` bytes in pieces and leaves out those that hold zeros alone.
fn for_each_piece(
    file: &File,
    size: u64,
    mut take: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    for offset in (0..size).step_by(PIECE) {
        let len = usize::try_from(size - offset).map_or(PIECE, |rest| rest.min(PIECE));
        let bytes = piece.get_mut(..len).unwrap_or_default();
        file.read_exact_at(bytes, offset)?;
        if bytes.iter().any(|&byte| byte != 0) {
            take(offset, bytes)?;
        }
    }
    Ok(())
}

/// Reads a bank's file and gives its pieces, except those that hold zeros alone.
///
/// # Errors
/// A file that is no bank, or that cannot be read.
pub fn read_bank(
    path: &Path,
    size: u64,
    take: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), VarsError> {
    let file = open(path, false)?;
    check_size(&file, path, size)?;
    for_each_piece(&file, size, take).map_err(|error| VarsError::Open(path.to_owned(), error))
}

fn open(path: &Path, write: bool) -> Result<File, VarsError> {
    let failed = |error| VarsError::Open(path.to_owned(), error);
    // Non-blocking: opening a pipe would otherwise wait for its other end.
    let file = OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(VarsError::Kind(path.to_owned()));
    }
    Ok(file)
}

fn check_size(file: &File, path: &Path, size: u64) -> Result<(), VarsError> {
    let failed = |error| VarsError::Open(path.to_owned(), error);
    match file.metadata().map_err(failed)?.len() {
        have if have == size => Ok(()),
        have => Err(VarsError::Size(path.to_owned(), have, size)),
    }
}

// === impl VarsFile ===

impl VarsFile {
    /// Opens a machine's file of `size` bytes and locks it.
    ///
    /// # Errors
    /// [`VarsError`], which names the file.
    pub fn open(path: &Path, size: u64) -> Result<Self, VarsError> {
        let file = open(path, true)?;
        check_size(&file, path, size)?;
        match lock::lock(&file, false) {
            Ok(true) => Ok(Self {
                file,
                size,
                synced: None,
                dirty: false,
            }),
            Ok(false) => Err(VarsError::InUse(path.to_owned())),
            Err(error) => Err(VarsError::Open(path.to_owned(), error)),
        }
    }

    /// Gives what the file holds, except pieces that hold zeros alone.
    ///
    /// # Errors
    /// The file system's.
    pub fn read(&self, take: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        for_each_piece(&self.file, self.size, take)
    }

    /// Keeps these bytes; nothing is ever written behind the file's end.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.dirty = true;
        self.file.write_all_at(bytes, offset)
    }

    /// Makes what was written survive the host's fall, unless that was done a moment ago.
    pub fn settle(&mut self) {
        let recent = self.synced.is_some_and(|synced| synced.elapsed() < SYNC_PAUSE);
        if self.dirty && !recent {
            self.sync();
        }
    }

    fn sync(&mut self) {
        // Nobody is left to be told; the bytes are in the file, as far as any process can see.
        self.file.sync_data().ok();
        (self.synced, self.dirty) = (Some(Instant::now()), false);
    }
}

impl Drop for VarsFile {
    fn drop(&mut self) {
        if self.dirty {
            self.sync();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn template(folder: &Path) -> PathBuf {
        let path = folder.join("template.fd");
        let mut bytes = vec![0; 1 << 20];
        bytes[300_000..300_004].copy_from_slice(b"vars");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn all(vars: &VarsFile) -> Vec<(u64, Vec<u8>)> {
        let mut pieces = Vec::new();
        vars.read(|offset, bytes| {
            pieces.push((offset, bytes.to_vec()));
            Ok(())
        })
        .unwrap();
        pieces
    }

    #[test]
    fn variables_are_made_once_from_the_template_and_then_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (path, template) = (folder.path().join("vars.fd"), template(folder.path()));
        ensure(&path, Some(&template), SIZE).unwrap();
        let mut vars = VarsFile::open(&path, SIZE).unwrap();
        vars.write(300_000, b"mine").unwrap();
        vars.settle();
        drop(vars);
        ensure(&path, Some(&template), SIZE).unwrap();
        let pieces = all(&VarsFile::open(&path, SIZE).unwrap());
        assert_eq!(pieces.len(), 1, "the rest is zeros");
        let (offset, bytes) = &pieces[0];
        assert_eq!(
            (*offset, &bytes[300_000 - 262_144..][..4]),
            (262_144, &b"mine"[..])
        );
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            2,
            "no partial file is left"
        );
    }

    #[test]
    fn files_that_are_no_bank_are_refused_and_left_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vars.fd");
        let missing = ensure(&path, None, SIZE).unwrap_err().to_string();
        assert!(
            missing.ends_with("do not exist, and no template is named to make them from"),
            "{missing}"
        );
        fs::write(&path, [0; 100]).unwrap();
        let short = VarsFile::open(&path, SIZE).unwrap_err().to_string();
        assert!(
            short.ends_with("have 100 bytes; a flash bank's file has 1048576"),
            "{short}"
        );
        let from_short = ensure(&folder.path().join("new.fd"), Some(&path), SIZE);
        assert!(matches!(from_short, Err(VarsError::Size(_, 100, SIZE))));
        assert!(matches!(
            VarsFile::open(folder.path(), SIZE),
            Err(VarsError::Open(..) | VarsError::Kind(_))
        ));
        assert!(!folder.path().join("new.fd").exists());
    }

    #[test]
    fn two_machines_do_not_share_their_variables() {
        let folder = tempfile::tempdir().unwrap();
        let path = template(folder.path());
        let first = VarsFile::open(&path, SIZE).unwrap();
        assert!(matches!(VarsFile::open(&path, SIZE), Err(VarsError::InUse(_))));
        drop(first);
        assert!(VarsFile::open(&path, SIZE).is_ok());
    }

    #[test]
    fn nothing_is_written_behind_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = template(folder.path());
        let mut vars = VarsFile::open(&path, SIZE).unwrap();
        assert!(vars.write(SIZE - 1, &[1, 2]).is_err());
        assert!(vars.write(u64::MAX, &[1]).is_err());
        assert_eq!(fs::metadata(&path).unwrap().len(), SIZE);
    }
}
