//! What rvmm tells without booting anything: a machine's device tree, and the CPUs that there can be.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use rvmm_control::Accelerator;
use rvmm_hypervisor::{isa, offers};
use rvmm_machine::Machine;
use rvmm_qemu::QemuGuest;
use rvmm_spec::Spec;

/// Writes the device tree that the guest of this machine would find.
///
/// # Errors
/// What a boot would be refused for, or a file that cannot be written.
pub fn device_tree(spec: &Spec, accelerator: Accelerator, to: &Path) -> anyhow::Result<()> {
    let blob = match accelerator {
        Accelerator::Kvm => Machine::device_tree(spec)?,
        Accelerator::Tcg => {
            let folder = tempfile::tempdir().context("no folder for QEMU's files")?;
            QemuGuest::device_tree(spec, folder.path())?
        }
    };
    let written = if to == Path::new("-") {
        io::stdout().write_all(&blob)
    } else {
        File::create(to).and_then(|mut file| file.write_all(&blob))
    };
    written.with_context(|| format!("--dump-dtb '{}' cannot be written", to.display()))
}

/// Whether the command line asks for the list of CPUs: `--cpu help`.
pub fn is_cpu_help(arguments: &[OsString]) -> bool {
    let two = |pair: &[OsString]| matches!(pair, [name, value] if name == "--cpu" && value == "help");
    arguments.windows(2).any(two) || arguments.iter().any(|one| one == OsStr::new("--cpu=help"))
}

/// The list of CPUs.
pub fn cpu_help() -> String {
    let mut text =
        String::from("--cpu host[,EXT=on|off]…: the host's CPUs, with extensions switched by name\n\n");
    match offers() {
        Ok(offers) => {
            for (name, offer) in offers.isa {
                text.push_str(&format!("  {name:12} {}\n", offer.text()));
            }
            let names = |wanted: bool| {
                let found = offers.sbi.iter().filter(|(_, on)| *on == wanted);
                found.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            };
            text.push_str(&format!(
                "\nSBI extensions of this KVM: {}; off: {}\n",
                names(true),
                names(false)
            ));
        }
        Err(why) => {
            let names: Vec<_> = isa::EXTENSIONS.iter().map(|extension| extension.name).collect();
            for line in names.chunks(10) {
                text.push_str(&format!("  {}\n", line.join(" ")));
            }
            text.push_str(&format!(
                "\nHere QEMU decides which of them it has (no RISC-V KVM: {why})\n"
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(line: &str) -> bool {
        is_cpu_help(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn help_is_only_what_follows_cpu() {
        assert!(asks("rvmm --cpu help") && asks("rvmm --kernel Image --cpu=help"));
        assert!(!asks("rvmm --cpu host --name help"));
    }

    #[test]
    fn the_list_has_every_extension_of_the_table() {
        let text = cpu_help();
        let words: Vec<_> = text.split_whitespace().collect();
        assert!(
            isa::EXTENSIONS
                .iter()
                .all(|extension| words.contains(&extension.name)),
            "{text}"
        );
    }
}
