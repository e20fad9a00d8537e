//! How far rvmm is walled in while the machine runs, and which files of the host the machine needs.

use std::path::{Path, PathBuf};

use crate::error::SpecError;
use crate::limits::MAX_ALLOWED_PATHS;
use crate::{MacAddress, Payload, Spec};

/// The walls around rvmm.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sandbox {
    /// Whether they stand.
    pub mode: SandboxMode,
    /// Files and folders that stay reachable, for disks that are plugged in while the machine runs.
    pub allowed: Vec<PathBuf>,
}

/// Whether the walls stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SandboxMode {
    /// What is not allowed ends rvmm.
    #[default]
    On,
    /// System calls that are not allowed are written to the kernel's log, and go on. For debugging.
    Log,
    /// No walls. For debugging.
    Off,
}

/// A file that the machine needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostFile<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// Whether the machine writes it.
    pub written: bool,
}

// === impl Sandbox ===

impl Sandbox {
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        if self.allowed.len() > MAX_ALLOWED_PATHS {
            return Err(SpecError::AllowedPaths(self.allowed.len()));
        }
        Ok(())
    }
}

// === impl Spec ===

impl Spec {
    /// Every file that this names. What is missing here is out of the machine's reach.
    pub fn files(&self) -> Vec<HostFile<'_>> {
        let read = self
            .boot
            .read_files()
            .map(|path| HostFile { path, written: false });
        let written = self
            .boot
            .written_file()
            .map(|path| HostFile { path, written: true });
        let mut files: Vec<_> = read.chain(written).collect();
        files.extend(self.disks.iter().map(|disk| HostFile {
            path: &disk.path,
            written: !disk.read_only,
        }));
        let bases = self.disks.iter().filter_map(|disk| disk.base.as_ref());
        files.extend(bases.map(|base| HostFile {
            path: &base.path,
            written: false,
        }));
        files
    }

    /// The same machine with each of its [`files`](Self::files) somewhere else: what is at one path is told apart from what is at
    /// another, and from nothing more.
    #[must_use]
    pub fn with_files_at(&self, place: impl Fn(&Path) -> PathBuf) -> Self {
        let mut spec = self.clone();
        let boot = &mut spec.boot;
        let (first, vars) = match &mut boot.payload {
            Payload::Kernel(kernel) => (kernel, None),
            Payload::Firmware(firmware) => (&mut firmware.image, firmware.vars.as_mut()),
        };
        let vars = vars.into_iter();
        let vars = vars.flat_map(|vars| std::iter::once(&mut vars.file).chain(&mut vars.template));
        let booted = std::iter::once(first).chain(vars);
        let booted = booted.chain(&mut boot.initrd).chain(&mut boot.overlays);
        booted.for_each(|path| *path = place(path));
        for disk in &mut spec.disks {
            disk.path = place(&disk.path);
            if let Some(base) = &mut disk.base {
                base.path = place(&base.path);
            }
        }
        spec
    }

    /// The same machine with this address of its first interface, if it has one.
    #[must_use]
    pub fn with_mac(&self, mac: MacAddress) -> Self {
        let mut spec = self.clone();
        if let Some(net) = spec.nets.first_mut() {
            net.mac = mac;
        }
        spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Base, Boot, Disk, DiskFormat, Firmware, Vars};

    #[test]
    fn every_file_is_listed_with_what_is_done_to_it() {
        let disk = |path: &str, read_only| Disk {
            read_only,
            ..Disk::new(path)
        };
        let boot = Boot {
            initrd: Some("initrd".into()),
            ..Boot::new("Image")
        };
        let on_base = Disk {
            format: DiskFormat::Qcow2,
            base: Some(Base {
                path: "base".into(),
                format: DiskFormat::Raw,
            }),
            ..disk("a", false)
        };
        let wish = Spec::builder(boot).disk(on_base).disk(disk("b", true));
        let spec = wish.build().unwrap();
        let files: Vec<_> = spec
            .files()
            .iter()
            .map(|file| (file.path.to_str().unwrap(), file.written))
            .collect();
        assert_eq!(
            files,
            [
                ("Image", false),
                ("initrd", false),
                ("a", true),
                ("b", false),
                ("base", false)
            ]
        );
    }

    #[test]
    fn the_first_interface_can_have_another_address() {
        let tap = || "tap0".parse().unwrap();
        let (first, second) = ("02:00:00:00:00:11", "02:00:00:00:00:12");
        let mac = |text: &str| text.parse().ok();
        let spec = Spec::builder(Boot::new("Image"))
            .net(tap(), mac(first))
            .net("tap1".parse().unwrap(), mac(second))
            .build()
            .unwrap();
        let given = spec.with_mac("02:00:00:00:00:13".parse().unwrap());
        let macs: Vec<String> = given.nets().iter().map(|net| net.mac.to_string()).collect();
        assert_eq!(macs, ["02:00:00:00:00:13", second]);
    }

    #[test]
    fn every_file_that_is_listed_can_be_elsewhere() {
        let boot = Boot {
            overlays: vec!["overlay".into()],
            ..Boot::firmware(Firmware {
                image: "code".into(),
                vars: Some(Vars {
                    file: "vars".into(),
                    template: Some("template".into()),
                }),
            })
        };
        let disk = Disk {
            format: DiskFormat::Qcow2,
            base: Some(Base {
                path: "base".into(),
                format: DiskFormat::Raw,
            }),
            ..Disk::new("disk")
        };
        let spec = Spec::builder(boot).disk(disk).build().unwrap();
        let moved = spec.with_files_at(|path| Path::new("/elsewhere").join(path));
        let paths = |spec: &Spec| -> Vec<PathBuf> {
            let files = spec.files();
            files.iter().map(|file| file.path.to_owned()).collect()
        };
        let expected: Vec<_> = paths(&spec)
            .iter()
            .map(|path| Path::new("/elsewhere").join(path))
            .collect();
        assert_eq!(paths(&moved), expected);
        assert_eq!(expected.len(), 6);
    }
}
