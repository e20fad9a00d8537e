//! The part of the command line that says what is booted.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use rvm_firmware::locate;
use rvmm_spec::{Boot, DiskBus, Firmware, Vars, boot};

/// Names of our catalog, in place of a file.
const UBOOT: &str = "uboot";
const EDK2: &str = "edk2";

/// What is booted, besides the kernel and its command line.
#[derive(Debug, Args)]
pub struct BootArgs {
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Boot a firmware that finds a system on a disk: 'uboot', 'edk2', or a file (U-Boot for S-mode, EDK2 in flash)
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["kernel", "initrd", "cmdline"])]
    firmware: Option<PathBuf>,
    /// Where EDK2 keeps its variables; made from a template where it does not exist [default: they are forgotten]
    #[arg(long, value_name = "FILE[,template=FILE]", requires = "firmware")]
    firmware_vars: Option<String>,
    /// Change the machine's device tree by an overlay (.dtbo); may be repeated
    #[arg(long = "dtb-overlay", value_name = "FILE")]
    overlays: Vec<PathBuf>,
}

// === impl BootArgs ===

impl BootArgs {
    /// What is booted, where the first disk is on this bus.
    ///
    /// # Errors
    /// A firmware that is not there, in one line.
    pub fn resolve(
        self,
        kernel: Option<PathBuf>,
        cmdline: Option<String>,
        disk: Option<DiskBus>,
    ) -> anyhow::Result<Boot> {
        let boot = if let Some(firmware) = &self.firmware {
            Boot::firmware(find(firmware, self.firmware_vars.as_deref())?)
        } else {
            let root = disk.filter(|_| self.initrd.is_none());
            Boot {
                cmdline: cmdline.unwrap_or_else(|| default_cmdline(root)),
                initrd: self.initrd,
                ..Boot::new(kernel.context("--kernel or --firmware is needed")?)
            }
        };
        Ok(Boot {
            overlays: self.overlays,
            ..boot
        })
    }
}

fn default_cmdline(root: Option<DiskBus>) -> String {
    let root = match root {
        Some(DiskBus::Virtio) => " root=/dev/vda rw",
        Some(DiskBus::Scsi) => " root=/dev/sda rw",
        None => "",
    };
    format!("{}{root}", boot::DEFAULT_CMDLINE)
}

fn find(wanted: &Path, vars: Option<&str>) -> anyhow::Result<Firmware> {
    let vars = vars.map(parse_vars).transpose()?;
    if wanted == Path::new(UBOOT) {
        let image = locate(UBOOT).context("--firmware uboot")?;
        return Ok(Firmware { image, vars });
    }
    if wanted != Path::new(EDK2) {
        return Ok(Firmware {
            image: wanted.to_owned(),
            vars,
        });
    }
    let vars = vars.map(|vars| with_template(vars).context("--firmware edk2"));
    Ok(Firmware {
        image: locate("edk2-code").context("--firmware edk2")?,
        vars: vars.transpose()?,
    })
}

fn with_template(vars: Vars) -> anyhow::Result<Vars> {
    let template = match vars.template {
        None => locate("edk2-vars")?,
        Some(template) => template,
    };
    Ok(Vars {
        template: Some(template),
        ..vars
    })
}

fn parse_vars(text: &str) -> anyhow::Result<Vars> {
    let (file, rest) = text
        .split_once(',')
        .map_or((text, None), |(file, rest)| (file, Some(rest)));
    if file.is_empty() {
        bail!("--firmware-vars '{text}' names no file");
    }
    let template = rest.map(|rest| {
        let template = rest.strip_prefix("template=").filter(|file| !file.is_empty());
        template
            .with_context(|| format!("--firmware-vars '{text}': '{rest}' is not known; 'template=FILE' is"))
    });
    Ok(Vars {
        file: file.into(),
        template: template.transpose()?.map(PathBuf::from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firmware_of_our_own_needs_no_catalog() {
        let found = find(Path::new("fw.fd"), Some("v.fd,template=t.fd")).unwrap();
        assert_eq!(found.image, Path::new("fw.fd"));
        let vars = found.vars.unwrap();
        assert_eq!(
            (vars.file, vars.template),
            ("v.fd".into(), Some(PathBuf::from("t.fd")))
        );
        assert_eq!(find(Path::new("fw.bin"), None).unwrap().vars, None);
    }

    #[test]
    fn wrong_words_about_variables_are_named() {
        let text = |vars| format!("{:#}", find(Path::new("fw.fd"), Some(vars)).unwrap_err());
        assert_eq!(text(",template=t"), "--firmware-vars ',template=t' names no file");
        assert_eq!(
            text("v.fd,size=3"),
            "--firmware-vars 'v.fd,size=3': 'size=3' is not known; 'template=FILE' is"
        );
        assert!(text("v.fd,template=").contains("'template=' is not known"));
    }

    #[test]
    fn only_a_disk_without_an_initrd_is_the_root() {
        let root = default_cmdline;
        assert_eq!(root(Some(DiskBus::Virtio)), "console=ttyS0 root=/dev/vda rw");
        assert_eq!(root(Some(DiskBus::Scsi)), "console=ttyS0 root=/dev/sda rw");
        assert_eq!(root(None), "console=ttyS0");
    }
}
