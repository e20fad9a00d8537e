//! Volumes that the kubelet has brought to a machine's pod, as this node's kubelet keeps them:
//!
//! ```text
//!   pods/UID/volumes/kubernetes.io~csi/PV/mount/disk.img     mounted by a driver
//!   pods/UID/volumes/kubernetes.io~PLUGIN/PV/disk.img        mounted by the kubelet itself
//!   pods/UID/dev/VOLUME                                      no file of ours: it stands for /dev/VOLUME of the pod's container
//! ```
//!
//! The folders down to the volume are the kubelet's, and no pod gets at them. What lies in it anybody may have put there who has ever
//! had the claim: so it is looked at before it is opened, over no link, and opened as what was looked at.
//!
//! A block device is not opened here at all. Its node in the container is the one that the container's cgroup allows; a descriptor that
//! only names it is handed over, and whoever opens it is the pod's process, held against that cgroup. So nothing that a pod could do to
//! its own /dev gives it a device that it was not given.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::PersistentVolumeSpec;
use rustix::fs::{CWD, Mode, OFlags, fstatvfs, openat};
use rustix::io::Errno;

use super::host_disk::{HostDiskError, beneath};

/// Where a pod's volumes are, and where its devices would be, below the pod's folder.
const VOLUMES: &str = "volumes";
const DEVICES: &str = "dev";

/// Part of a claim's size that its file system may keep for itself: a tenth, as KubeVirt has it.
const KEPT: u64 = 10;
/// A disk that is made smaller for that is whole mebibytes.
const WHOLE: u64 = 1 << 20;

/// The folder that the kubelet has for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFolder(PathBuf);

// === impl PodFolder ===

impl PodFolder {
    /// Of the pod with this UID, which must be one.
    pub fn new(kubelet: &Path, uid: &str) -> Self {
        Self(kubelet.join("pods").join(uid))
    }

    /// The pod's volume of this name that is nobody else's.
    pub fn empty_dir(&self, name: &str) -> PathBuf {
        self.volume("kubernetes.io~empty-dir", name)
    }

    /// Where the file system of a PersistentVolume is, if the kubelet is one to mount such a volume at a place of its own.
    pub fn file_system(&self, name: &str, spec: &PersistentVolumeSpec) -> Option<PathBuf> {
        let plugin = match spec {
            spec if spec.csi.is_some() => return Some(self.volume("kubernetes.io~csi", name).join("mount")),
            spec if spec.local.is_some() => "kubernetes.io~local-volume",
            spec if spec.nfs.is_some() => "kubernetes.io~nfs",
            spec if spec.iscsi.is_some() => "kubernetes.io~iscsi",
            spec if spec.fc.is_some() => "kubernetes.io~fc",
            _ => return None,
        };
        Some(self.volume(plugin, name))
    }

    /// What stands for the block device of a volume of the pod's.
    pub fn device(&self, volume: &str) -> PathBuf {
        self.0.join(DEVICES).join(volume)
    }

    /// Where that device is in the container, if this path stands for one.
    pub fn in_container(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(self.0.join(DEVICES)).ok()?;
        Some(Path::new(DEVICES).join(below))
    }

    /// Whether this is a file in one of the pod's volumes.
    pub fn holds(&self, path: &Path) -> bool {
        path.starts_with(self.0.join(VOLUMES))
    }

    fn volume(&self, plugin: &str, name: &str) -> PathBuf {
        self.0.join(VOLUMES).join(plugin).join(name)
    }
}

/// The disk in a volume's file system, made with this size where one is given and it is not there; and its size in bytes.
///
/// # Errors
/// There is no such file, or it is none, or has no room.
pub fn disk(path: &Path, create: Option<u64>) -> Result<u64, HostDiskError> {
    let failed = |errno: Errno| because(path, errno);
    let file = match (open(path, false), create) {
        (Err(HostDiskError::Io(_, error)), Some(size)) if error.kind() == io::ErrorKind::NotFound => {
            let (root, name) = parts(path)?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let size = room(&root, path, size)?;
            let made = beneath(&root, name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
            let made = File::from(made);
            made.set_len(size)
                .map_err(|error| HostDiskError::Io(path.to_owned(), error))?;
            made
        }
        (file, _) => file?,
    };
    let metadata = file.metadata();
    let metadata = metadata.map_err(|error| HostDiskError::Io(path.to_owned(), error))?;
    Ok(metadata.len())
}

/// Opens a file of a volume, which is one and no link to another.
///
/// # Errors
/// [`HostDiskError`].
pub fn open(path: &Path, written: bool) -> Result<File, HostDiskError> {
    open_with(path, written, OFlags::empty())
}

/// Whether it can be read past the page cache.
pub fn can_be_direct(path: &Path) -> bool {
    open_with(path, false, OFlags::DIRECT).is_ok()
}

fn open_with(path: &Path, written: bool, flags: OFlags) -> Result<File, HostDiskError> {
    let (root, name) = parts(path)?;
    let found = beneath(&root, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let found = File::from(found.map_err(|errno| because(path, errno))?);
    let failed = |error| HostDiskError::Io(path.to_owned(), error);
    // A device or a pipe could do something by being opened.
    if !found.metadata().map_err(failed)?.is_file() {
        return Err(HostDiskError::Kind(path.to_owned()));
    }
    let mut options = File::options();
    options
        .read(true)
        .write(written)
        .custom_flags((flags | OFlags::CLOEXEC).bits().cast_signed());
    options.open(own(&found)).map_err(failed)
}

/// Names the block device of a pod's container, whose process this is, and gives its node there to this user.
///
/// # Errors
/// There is none.
pub fn device(process: u32, path: &Path, user: u32) -> Result<OwnedFd, HostDiskError> {
    let failed = |error| HostDiskError::Io(path.to_owned(), error);
    let root = File::open(format!("/proc/{process}/root")).map_err(failed)?;
    let found = beneath(&root.into(), path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let found = File::from(found.map_err(|errno| because(path, errno))?);
    if !found.metadata().map_err(failed)?.file_type().is_block_device() {
        return Err(HostDiskError::NoDevice(path.to_owned()));
    }
    // The container's own node: the node's is another.
    chown(own(&found), Some(user), Some(user)).map_err(failed)?;
    Ok(found.into())
}

/// The folder of a volume, and the name of a file in it.
fn parts(path: &Path) -> Result<(OwnedFd, &Path), HostDiskError> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(HostDiskError::Kind(path.to_owned()));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = openat(CWD, folder, flags, Mode::empty()).map_err(|errno| because(path, errno))?;
    Ok((root, Path::new(name)))
}

/// The size of a disk that is to have this one, in a file system that keeps some of its volume for itself.
fn room(folder: &OwnedFd, path: &Path, size: u64) -> Result<u64, HostDiskError> {
    let has = fstatvfs(folder).map_err(|errno| because(path, errno))?;
    let free = has.f_bavail.saturating_mul(has.f_frsize);
    if size <= free {
        return Ok(size);
    }
    let smaller = free - free % WHOLE;
    if smaller < size - size / KEPT {
        return Err(HostDiskError::NoRoom(path.to_owned(), size, free));
    }
    Ok(smaller)
}

fn own(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn because(path: &Path, errno: Errno) -> HostDiskError {
    match errno {
        Errno::LOOP | Errno::XDEV => HostDiskError::Link(path.to_owned()),
        errno => HostDiskError::Io(path.to_owned(), errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;
    use std::os::unix::fs::{FileExt, symlink};

    fn folder_of(spec: serde_json::Value) -> Option<String> {
        let pod = PodFolder::new(Path::new("/k"), "1-a");
        let spec = serde_json::from_value(spec).unwrap();
        let path = pod.file_system("v", &spec)?;
        Some(path.display().to_string())
    }

    #[test]
    fn a_volume_is_where_the_kubelet_mounts_its_kind() {
        let csi = folder_of(json!({"csi": {"driver": "d", "volumeHandle": "1"}}));
        assert_eq!(
            csi.as_deref(),
            Some("/k/pods/1-a/volumes/kubernetes.io~csi/v/mount")
        );
        let local = folder_of(json!({"local": {"path": "/x"}}));
        assert_eq!(
            local.as_deref(),
            Some("/k/pods/1-a/volumes/kubernetes.io~local-volume/v")
        );
        assert_eq!(folder_of(json!({"hostPath": {"path": "/x"}})), None);
        let pod = PodFolder::new(Path::new("/k"), "1-a");
        let device = pod.device("data");
        assert_eq!(pod.in_container(&device), Some("dev/data".into()));
        assert!(!pod.holds(&device) && pod.in_container(Path::new("/dev/data")).is_none());
    }

    #[test]
    fn a_disk_is_made_once_and_keeps_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        assert!(matches!(disk(&path, None), Err(HostDiskError::Io(..))));
        assert_eq!(disk(&path, Some(8192)).unwrap(), 8192);
        open(&path, true).unwrap().write_all_at(b"kept", 0).unwrap();
        assert_eq!(disk(&path, Some(4096)).unwrap(), 8192);
        assert!(fs::read(&path).unwrap().starts_with(b"kept"));
    }

    #[test]
    fn what_others_have_put_into_a_volume_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, "x").unwrap();
        let volume = folder.path().join("volume");
        fs::create_dir(&volume).unwrap();
        let path = |name: &str| volume.join(name);
        symlink(&secret, path("link")).unwrap();
        symlink("/dev/zero", path("device")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        rustix::fs::mknodat(
            CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        for name in ["link", "device"] {
            let refused = disk(&path(name), Some(4096));
            assert!(
                matches!(refused, Err(HostDiskError::Link(_))),
                "{name}: {refused:?}"
            );
            assert!(!can_be_direct(&path(name)));
        }
        for name in ["folder", "pipe"] {
            let refused = open(&path(name), true);
            assert!(
                matches!(refused, Err(HostDiskError::Kind(_))),
                "{name}: {refused:?}"
            );
        }
        assert_eq!(fs::read(secret).unwrap(), b"x");
    }

    #[test]
    fn a_disk_without_room_is_refused_before_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let refused = disk(&path, Some(u64::MAX));
        assert!(matches!(refused, Err(HostDiskError::NoRoom(..))), "{refused:?}");
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_block_device_is_none_of_a_pods() {
        let refused = device(std::process::id(), Path::new("dev/null"), 0);
        assert!(matches!(refused, Err(HostDiskError::NoDevice(_))), "{refused:?}");
        let refused = device(std::process::id(), Path::new("dev/stdin"), 0);
        assert!(matches!(refused, Err(HostDiskError::Link(_))), "{refused:?}");
    }
}
