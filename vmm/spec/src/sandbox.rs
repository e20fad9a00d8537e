//! How far rvmm is walled in while the machine runs, and which files of the host the machine needs.

use std::path::{Path, PathBuf};

use crate::Spec;
use crate::builder::SpecError;
use crate::limits::MAX_ALLOWED_PATHS;

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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Base, Boot, Disk, DiskFormat};

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
}
