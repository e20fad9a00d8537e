//! The file systems that the image does not bring because a container runtime would.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::say;

/// The most mounts that are taken down in the end.
const MAX_UNMOUNTS: usize = 256;

struct Mount {
    kind: &'static str,
    place: &'static str,
    flags: MountFlags,
    data: &'static CStr,
}

const QUIET: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);
const DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);
const SCRATCH: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// In this order: later ones lie inside earlier ones.
const MOUNTS: [Mount; 7] = [
    Mount {
        kind: "proc",
        place: "/proc",
        flags: QUIET,
        data: c"",
    },
    Mount {
        kind: "sysfs",
        place: "/sys",
        flags: QUIET,
        data: c"",
    },
    Mount {
        kind: "devtmpfs",
        place: "/dev",
        flags: MountFlags::NOSUID,
        data: c"mode=0755",
    },
    Mount {
        kind: "devpts",
        place: "/dev/pts",
        flags: DEVICES,
        data: c"gid=5,mode=0620,ptmxmode=0666",
    },
    Mount {
        kind: "tmpfs",
        place: "/dev/shm",
        flags: SCRATCH,
        data: c"mode=1777",
    },
    Mount {
        kind: "tmpfs",
        place: "/run",
        flags: SCRATCH,
        data: c"mode=0755",
    },
    Mount {
        kind: "tmpfs",
        place: "/tmp",
        flags: SCRATCH,
        data: c"mode=1777",
    },
];

/// Mounts everything; what fails is said and left out.
pub fn mount_all() {
    for Mount {
        kind,
        place,
        flags,
        data,
    } in MOUNTS
    {
        let mounted = make_folder(Path::new(place))
            .and_then(|()| mount(kind, place, kind, flags, data).map_err(io::Error::from));
        if let Err(error) = mounted {
            say::problem(&format!("cannot mount {place}"), error);
        }
    }
}

/// Takes down what lies on a block device, newest first, so that it is whole on the disk.
pub fn unmount_disks() {
    let table = fs::read("/proc/mounts").unwrap_or_default();
    for place in disk_mounts(&String::from_utf8_lossy(&table)) {
        if let Err(error) = unmount(place.as_str(), UnmountFlags::empty()) {
            say::problem(&format!("cannot unmount {place}"), error);
        }
    }
}

/// Where block devices are mounted, newest first.
fn disk_mounts(table: &str) -> Vec<String> {
    let places = table.lines().filter_map(|line| {
        let (device, rest) = line.split_once(' ')?;
        let place = rest.split(' ').next()?;
        // The kernel writes a space inside a name as \040.
        device.starts_with("/dev/").then(|| place.replace("\\040", " "))
    });
    let mut places: Vec<_> = places.take(MAX_UNMOUNTS).collect();
    places.reverse();
    places
}

/// Makes `place` a folder of its own. An image may have a link or a file there, and mounting would follow the link.
fn make_folder(place: &Path) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => fs::remove_file(place)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::DirBuilder::new().mode(0o755).create(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_where_a_file_system_belongs_is_replaced_and_not_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("elsewhere")).unwrap();
        let place = root.path().join("run");
        std::os::unix::fs::symlink("elsewhere", &place).unwrap();
        make_folder(&place).unwrap();
        assert!(fs::symlink_metadata(&place).unwrap().is_dir());
        assert!(root.path().join("elsewhere").is_dir());
    }

    #[test]
    fn a_folder_that_is_there_keeps_its_content_and_a_file_gives_way() {
        let root = tempfile::tempdir().unwrap();
        let (kept, file, fresh) = (
            root.path().join("kept"),
            root.path().join("file"),
            root.path().join("fresh"),
        );
        fs::create_dir_all(kept.join("in")).unwrap();
        fs::write(&file, "").unwrap();
        make_folder(&kept).unwrap();
        make_folder(&file).unwrap();
        make_folder(&fresh).unwrap();
        assert!(kept.join("in").is_dir() && file.is_dir() && fresh.is_dir());
    }

    #[test]
    fn only_disks_are_unmounted_and_the_newest_first() {
        let table =
            "proc /proc proc rw 0 0\n/dev/vda /mnt ext4 rw 0 0\n/dev/vdb /mnt/my\\040disk ext4 rw 0 0\n\n";
        assert_eq!(disk_mounts(table), ["/mnt/my disk", "/mnt"]);
    }
}
