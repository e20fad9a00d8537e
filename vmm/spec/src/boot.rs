//! What a machine boots: a kernel and what is handed to it, or a firmware that finds one on a disk.

use std::path::{Path, PathBuf};

use crate::error::SpecError;
use crate::limits::{MAX_CMDLINE, MAX_OVERLAYS};

/// The command line when none is given.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0";

/// What is started in S-mode, and what it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// What is started.
    pub payload: Payload,
    /// The initial RAM disk, loaded as it is. A firmware takes none.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line. A firmware takes none.
    pub cmdline: String,
    /// Device-tree overlays, applied to the machine's tree in this order.
    pub overlays: Vec<PathBuf>,
}

/// What is started first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A riscv64 kernel: an Image, plain or gzip'd, EFI zboot or ELF.
    Kernel(PathBuf),
    /// A firmware that boots from a disk.
    Firmware(Firmware),
}

/// A firmware: U-Boot in RAM, or EDK2 in flash. The file's content says which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// A raw binary or ELF for RAM, or an EFI firmware volume for flash.
    pub image: PathBuf,
    /// Where a firmware in flash keeps its variables; without, it forgets them at each boot.
    pub vars: Option<Vars>,
}

/// A variable store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vars {
    /// The machine's own, which its guest writes.
    pub file: PathBuf,
    /// What the file is made from where it does not exist.
    pub template: Option<PathBuf>,
}

// === impl Boot ===

impl Boot {
    /// This kernel with [`DEFAULT_CMDLINE`] and no initrd.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            payload: Payload::Kernel(kernel.into()),
            initrd: None,
            cmdline: DEFAULT_CMDLINE.to_owned(),
            overlays: Vec::new(),
        }
    }

    /// This firmware.
    pub fn firmware(firmware: Firmware) -> Self {
        Self {
            payload: Payload::Firmware(firmware),
            initrd: None,
            cmdline: String::new(),
            overlays: Vec::new(),
        }
    }

    /// Files that are only read, as far as they are named here.
    pub fn read_files(&self) -> impl Iterator<Item = &Path> {
        let (first, template) = match &self.payload {
            Payload::Kernel(kernel) => (kernel, None),
            Payload::Firmware(firmware) => {
                let template = firmware.vars.as_ref().and_then(|vars| vars.template.as_ref());
                (&firmware.image, template)
            }
        };
        let more = template.into_iter().chain(&self.initrd).chain(&self.overlays);
        std::iter::once(first).chain(more).map(PathBuf::as_path)
    }

    /// The file that the guest writes its firmware's variables to.
    pub fn written_file(&self) -> Option<&Path> {
        match &self.payload {
            Payload::Kernel(_) => None,
            Payload::Firmware(firmware) => firmware.vars.as_ref().map(|vars| vars.file.as_path()),
        }
    }

    pub(crate) fn check(&self) -> Result<(), SpecError> {
        if self.cmdline.len() > MAX_CMDLINE {
            return Err(SpecError::CmdlineLength(self.cmdline.len()));
        }
        if self.cmdline.contains(['\0', '\n', '\r']) {
            return Err(SpecError::CmdlineCharacter);
        }
        if self.overlays.len() > MAX_OVERLAYS {
            return Err(SpecError::Overlays(self.overlays.len()));
        }
        if let Payload::Firmware(_) = self.payload {
            if self.initrd.is_some() {
                return Err(SpecError::NeedsKernel("an initial RAM disk"));
            }
            if !self.cmdline.is_empty() {
                return Err(SpecError::NeedsKernel("a kernel command line"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spec;

    fn edk2() -> Boot {
        Boot::firmware(Firmware {
            image: "code.fd".into(),
            vars: Some(Vars {
                file: "vars.fd".into(),
                template: Some("template.fd".into()),
            }),
        })
    }

    #[test]
    fn a_command_line_that_a_kernel_would_misread_is_refused() {
        let boot = |cmdline: String| Boot {
            cmdline,
            ..Boot::new("Image")
        };
        let build = |cmdline: &str| Spec::builder(boot(cmdline.to_owned())).build();
        assert_eq!(build("a\0b"), Err(SpecError::CmdlineCharacter));
        assert_eq!(build(&"x".repeat(1024)), Err(SpecError::CmdlineLength(1024)));
        assert!(build(&"x".repeat(1023)).is_ok());
    }

    #[test]
    fn what_only_a_kernel_takes_is_refused_for_a_firmware() {
        assert!(Spec::builder(edk2()).build().is_ok());
        let initrd = Boot {
            initrd: Some("initrd".into()),
            ..edk2()
        };
        let refused = Spec::builder(initrd).build().unwrap_err().to_string();
        assert_eq!(
            refused,
            "an initial RAM disk needs a kernel; a firmware takes them from its disk"
        );
        let cmdline = Boot {
            cmdline: "quiet".to_owned(),
            ..edk2()
        };
        let refused = Spec::builder(cmdline).build();
        assert_eq!(refused, Err(SpecError::NeedsKernel("a kernel command line")));
    }

    #[test]
    fn every_file_is_either_read_or_written() {
        let boot = Boot {
            overlays: vec!["a.dtbo".into()],
            ..edk2()
        };
        let read: Vec<_> = boot.read_files().collect();
        assert_eq!(read, ["code.fd", "template.fd", "a.dtbo"].map(Path::new));
        assert_eq!(boot.written_file(), Some(Path::new("vars.fd")));
        let boot = Boot {
            initrd: Some("initrd".into()),
            ..Boot::new("Image")
        };
        assert_eq!(
            boot.read_files().collect::<Vec<_>>(),
            ["Image", "initrd"].map(Path::new)
        );
        assert_eq!(boot.written_file(), None);
    }

    #[test]
    fn overlays_have_a_limit() {
        let boot = Boot {
            overlays: vec!["a.dtbo".into(); 17],
            ..Boot::new("Image")
        };
        assert_eq!(Spec::builder(boot).build(), Err(SpecError::Overlays(17)));
    }
}
