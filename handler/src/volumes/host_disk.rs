//! Disks in files and devices of the node, for VMIs and PersistentVolumes that name one: only below folders that the node's owner has allowed, and never
//! over a symbolic link.
//!
//! rvmm opens the file later, by its path. So nobody but us and root may be able to exchange a folder on the way to it.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// Permission to write for anybody.
const ANYBODY_WRITES: u32 = 0o002;

/// The file may not be a disk, or cannot.
#[derive(Debug, thiserror::Error)]
pub enum HostDiskError {
    /// Nothing is allowed.
    #[error("host disks are not allowed on this node; its owner allows them with --host-disk-dir DIR")]
    Off,
    /// Not this.
    #[error("'{0}' lies below no folder that is allowed for host disks on this node")]
    NotAllowed(PathBuf),
    /// A link on the way, or the file itself.
    #[error("'{0}' leads over a symbolic link, or out of its folder")]
    Link(PathBuf),
    /// Someone could put another file there.
    #[error("'{0}' can be changed by other users, so no host disk may lie below it")]
    Others(PathBuf),
    /// A folder, a device …
    #[error("'{0}' is not a regular file")]
    Kind(PathBuf),
    /// A file, a folder …
    #[error("'{0}' is not a block device")]
    NoDevice(PathBuf),
    /// The file system's is smaller.
    #[error("'{0}' cannot be made with {1} bytes: its file system has {2} left")]
    NoRoom(PathBuf, u64, u64),
    /// Anything else.
    #[error("'{0}' cannot be used")]
    Io(PathBuf, #[source] io::Error),
}

/// The folders below which host disks are allowed; none, and there are no host disks.
#[derive(Debug, Clone, Default)]
pub struct Allowed(pub Vec<PathBuf>);

// === impl Allowed ===

impl Allowed {
    /// Looks at the file, and makes it with this size where it may be made and is not there.
    ///
    /// # Errors
    /// Any [`HostDiskError`].
    pub fn disk(&self, path: &Path, create: Option<u64>) -> Result<PathBuf, HostDiskError> {
        let (path, metadata) = self.look(path, create)?;
        if metadata.is_file() {
            Ok(path)
        } else {
            Err(HostDiskError::Kind(path))
        }
    }

    /// Looks at the block device.
    ///
    /// # Errors
    /// Any [`HostDiskError`].
    pub fn device(&self, path: &Path) -> Result<PathBuf, HostDiskError> {
        let (path, metadata) = self.look(path, None)?;
        if metadata.file_type().is_block_device() {
            Ok(path)
        } else {
            Err(HostDiskError::NoDevice(path))
        }
    }

    fn look(&self, path: &Path, create: Option<u64>) -> Result<(PathBuf, Metadata), HostDiskError> {
        if self.0.is_empty() {
            return Err(HostDiskError::Off);
        }
        let below = |folder: &PathBuf| Some((folder.clone(), path.strip_prefix(folder).ok()?.to_owned()));
        let found = self
            .0
            .iter()
            .find_map(below)
            .filter(|(_, rest)| !rest.as_os_str().is_empty());
        let (folder, rest) = found.ok_or_else(|| HostDiskError::NotAllowed(path.to_owned()))?;
        let failed = |errno: Errno| match errno {
            Errno::LOOP | Errno::XDEV => HostDiskError::Link(path.to_owned()),
            errno => HostDiskError::Io(path.to_owned(), errno.into()),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &folder, flags, Mode::empty())
            .map_err(|errno| HostDiskError::Io(folder.clone(), errno.into()))?;
        let parents: Vec<&Path> = rest.ancestors().skip(1).collect();
        for parent in parents.into_iter().rev() {
            let step = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            let opened = beneath(&root, step, flags, Mode::empty()).map_err(failed)?;
            require_ours(opened, &folder.join(parent))?;
        }
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match (beneath(&root, &rest, flags, Mode::empty()), create) {
            (Err(Errno::NOENT), Some(size)) => {
                let fresh = flags | OFlags::CREATE | OFlags::EXCL;
                let file = File::from(beneath(&root, &rest, fresh, Mode::RUSR | Mode::WUSR).map_err(failed)?);
                file.set_len(size)
                    .map_err(|error| HostDiskError::Io(path.to_owned(), error))?;
                file
            }
            (Err(Errno::ISDIR), _) => return Err(HostDiskError::Kind(path.to_owned())),
            (opened, _) => File::from(opened.map_err(failed)?),
        };
        let metadata = file
            .metadata()
            .map_err(|error| HostDiskError::Io(path.to_owned(), error))?;
        Ok((folder.join(rest), metadata))
    }
}

/// Opens what lies below a folder, over no link of any kind.
pub(super) fn beneath(root: &OwnedFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags, mode, resolve)
}

fn require_ours(folder: OwnedFd, path: &Path) -> Result<(), HostDiskError> {
    let metadata = File::from(folder).metadata();
    let metadata = metadata.map_err(|error| HostDiskError::Io(path.to_owned(), error))?;
    let ours = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    if !ours || metadata.mode() & ANYBODY_WRITES != 0 {
        return Err(HostDiskError::Others(path.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A folder that is allowed, whatever the umask.
    fn allowed() -> (tempfile::TempDir, Allowed, PathBuf) {
        let around = tempfile::tempdir().unwrap();
        let folder = around.path().join("disks");
        fs::create_dir_all(folder.join("a")).unwrap();
        for path in [&folder, &folder.join("a")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        (around, Allowed(vec![folder.clone()]), folder)
    }

    #[test]
    fn a_disk_below_an_allowed_folder_is_found_or_made() {
        let (_around, allowed, folder) = allowed();
        let path = folder.join("a/one.img");
        assert!(matches!(allowed.disk(&path, None), Err(HostDiskError::Io(..))));
        assert_eq!(allowed.disk(&path, Some(4096)).unwrap(), path);
        let made = fs::metadata(&path).unwrap();
        assert_eq!((made.len(), made.mode() & 0o777), (4096, 0o600));
        fs::write(&path, "kept").unwrap();
        assert_eq!(allowed.disk(&path, Some(8192)).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), b"kept");
    }

    #[test]
    fn nothing_is_allowed_unless_it_is_named() {
        let (around, allowed, folder) = allowed();
        let outside = around.path().join("secret");
        fs::write(&outside, "x").unwrap();
        assert!(matches!(
            Allowed::default().disk(&outside, None),
            Err(HostDiskError::Off)
        ));
        for path in [
            outside,
            folder.clone(),
            around.path().join("disks-too/a"),
            "/etc/shadow".into(),
        ] {
            assert!(
                matches!(allowed.disk(&path, Some(1)), Err(HostDiskError::NotAllowed(_))),
                "{path:?}"
            );
        }
        let climbs = folder.join("../secret");
        assert!(matches!(allowed.disk(&climbs, None), Err(HostDiskError::Link(_))));
    }

    #[test]
    fn links_folders_and_folders_of_others_are_refused() {
        let (around, allowed, folder) = allowed();
        fs::write(around.path().join("secret"), "x").unwrap();
        symlink(around.path().join("secret"), folder.join("link")).unwrap();
        symlink(around.path(), folder.join("out")).unwrap();
        for path in ["link", "out/secret"] {
            let refused = allowed.disk(&folder.join(path), Some(1));
            assert!(
                matches!(refused, Err(HostDiskError::Link(_))),
                "{path}: {refused:?}"
            );
        }
        assert!(matches!(
            allowed.disk(&folder.join("a"), None),
            Err(HostDiskError::Kind(_))
        ));
        fs::set_permissions(folder.join("a"), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = allowed.disk(&folder.join("a/one.img"), Some(1));
        assert!(matches!(refused, Err(HostDiskError::Others(path)) if path == folder.join("a")));
    }
}
