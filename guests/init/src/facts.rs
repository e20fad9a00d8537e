//! What the agent tells of the guest, in the form of QEMU's own agent.

use std::fs;

use serde_json::{Value, json};

use crate::release::Release;

/// Most file systems that are told: an answer must not be longer than the host reads.
const MAX_FILE_SYSTEMS: usize = 32;

/// The longest path of a file system that is told.
const MAX_PATH: usize = 256;

/// The keys of `os-release`, and what they are called here.
const NAMES: [(&str, &str); 5] = [
    ("ID", "id"),
    ("NAME", "name"),
    ("PRETTY_NAME", "pretty-name"),
    ("VERSION", "version"),
    ("VERSION_ID", "version-id"),
];

/// Answers `guest-get-osinfo`: the kernel's words and the image's.
pub(crate) fn system() -> Value {
    let kernel = rustix::system::uname();
    let release = Release::read();
    let mut system = json!({
        "kernel-release": kernel.release().to_string_lossy(),
        "kernel-version": kernel.version().to_string_lossy(),
        "machine": kernel.machine().to_string_lossy(),
    });
    for (key, name) in NAMES {
        if let Some(value) = release.value(key) {
            system[name] = value.into();
        }
    }
    system
}

/// Answers `guest-get-host-name`.
pub(crate) fn host_name() -> Value {
    json!({"host-name": rustix::system::uname().nodename().to_string_lossy()})
}

/// Answers `guest-get-fsinfo`: the file systems that are on disks.
pub(crate) fn file_systems() -> Value {
    let all = on_disks().into_iter();
    all.take(MAX_FILE_SYSTEMS).filter_map(|one| one.told()).collect()
}

/// Where file systems are mounted that are on disks, the oldest first.
pub(crate) fn disk_places() -> Vec<String> {
    on_disks().into_iter().map(|one| one.path).collect()
}

fn on_disks() -> Vec<Mounted> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().filter_map(Mounted::read).collect()
}

/// A file system on a disk.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    device: String,
    path: String,
    kind: String,
}

// === impl Mounted ===

impl Mounted {
    /// A line of `/proc/self/mounts`; none that is about something in memory.
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let device = words.next()?.strip_prefix("/dev/")?;
        let (path, kind) = (unescaped(words.next()?), words.next()?);
        (path.len() <= MAX_PATH).then(|| Self {
            device: device.to_owned(),
            path,
            kind: kind.to_owned(),
        })
    }

    /// With how full it is; nothing where it has gone meanwhile.
    fn told(&self) -> Option<Value> {
        let sizes = rustix::fs::statvfs(self.path.as_str()).ok()?;
        let used = sizes.f_blocks.saturating_sub(sizes.f_bfree);
        Some(json!({
            "name": self.device, "mountpoint": self.path, "type": self.kind, "disk": [],
            "used-bytes": used.saturating_mul(sizes.f_frsize),
            "total-bytes": used.saturating_add(sizes.f_bavail).saturating_mul(sizes.f_frsize),
        }))
    }
}

/// The kernel writes blanks, tabs, new lines and backslashes of paths as three octal digits.
fn unescaped(path: &str) -> String {
    let marks = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    marks
        .into_iter()
        .fold(path.to_owned(), |path, (mark, letter)| path.replace(mark, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_on_disks_are_told_and_others_are_not() {
        let disk = Mounted {
            device: "vda1".into(),
            path: "/my data".into(),
            kind: "ext4".into(),
        };
        assert_eq!(Mounted::read("/dev/vda1 /my\\040data ext4 rw 0 0"), Some(disk));
        assert_eq!(Mounted::read("proc /proc proc rw 0 0"), None);
        assert_eq!(Mounted::read("/dev/vda1"), None);
        let long = format!("/dev/vda1 /{} ext4", "x".repeat(9999));
        assert_eq!(Mounted::read(&long), None);
    }

    #[test]
    fn how_full_a_file_system_is_is_told() {
        let here = |path: &str| Mounted {
            device: "vda".into(),
            path: path.into(),
            kind: "ext4".into(),
        };
        let told = here("/").told().unwrap();
        assert!(told["total-bytes"].as_u64().unwrap() >= told["used-bytes"].as_u64().unwrap());
        assert_eq!(here("/nonexistent").told(), None);
    }

    #[test]
    fn the_system_is_told_with_its_kernel() {
        let kernel = rustix::system::uname();
        assert_eq!(system()["machine"], kernel.machine().to_string_lossy().as_ref());
        assert_eq!(
            host_name()["host-name"],
            kernel.nodename().to_string_lossy().as_ref()
        );
    }
}
