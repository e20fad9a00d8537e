//! Where QEMU is on this host, and what to install where it is not.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The program.
pub const PROGRAM: &str = "qemu-system-riscv64";

/// Names the program, or another path to it.
pub const PROGRAM_VARIABLE: &str = "RVMM_QEMU";

/// Names a firmware to use in place of QEMU's own; it must be the one in the catalogue.
pub const FIRMWARE_VARIABLE: &str = "RVMM_OPENSBI";

/// The catalogue's name of the firmware under TCG.
const FIRMWARE: &str = "opensbi-tcg";

/// The oldest version that has the machine we ask for.
pub const OLDEST: (u32, u32) = (8, 2);

/// QEMU or its firmware is not there.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Not on the path.
    #[error("no {PROGRAM} on the PATH; install {0}, or name it in {PROGRAM_VARIABLE}")]
    Missing(&'static str),
    /// Named, but not there.
    #[error("{PROGRAM_VARIABLE} names '{0}', which is not a program")]
    Named(PathBuf),
    /// Named, but not what the catalogue has.
    #[error("the firmware that {FIRMWARE_VARIABLE} names cannot be used")]
    Firmware(#[source] rvm_firmware::VerifyError),
}

/// Finds QEMU.
///
/// # Errors
/// [`FindError`], with what to install.
pub fn program() -> Result<PathBuf, FindError> {
    let path = env::var_os("PATH").unwrap_or_default();
    if let Some(named) = env::var_os(PROGRAM_VARIABLE).filter(|named| !named.is_empty()) {
        return search(&named, &path).ok_or(FindError::Named(named.into()));
    }
    search(OsStr::new(PROGRAM), &path).ok_or_else(|| {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        FindError::Missing(package(&release))
    })
}

/// The firmware to use in place of QEMU's own, if one is named, checked against the catalogue.
///
/// # Errors
/// [`FindError::Firmware`] when it is not the one that is in there.
pub fn firmware() -> Result<Option<PathBuf>, FindError> {
    let named = env::var_os(FIRMWARE_VARIABLE).filter(|named| !named.is_empty());
    named.map(|path| checked(PathBuf::from(path))).transpose()
}

fn checked(path: PathBuf) -> Result<PathBuf, FindError> {
    rvm_firmware::verify(FIRMWARE, &path).map_err(FindError::Firmware)?;
    Ok(path)
}

/// A name with a slash is a path; another one is looked for in the folders of `path`.
fn search(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    let is_program = |candidate: &PathBuf| {
        let metadata = fs::metadata(candidate);
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if Path::new(name).components().count() > 1 {
        return Some(PathBuf::from(name)).filter(is_program);
    }
    env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(is_program)
}

/// The package that holds QEMU for RISC-V, by `/etc/os-release`.
fn package(release: &str) -> &'static str {
    let field = |name: &str| {
        let mut lines = release.lines().filter_map(|line| line.split_once('='));
        let value = lines.find(|(key, _)| *key == name).map_or("", |(_, value)| value);
        value.trim_matches('"')
    };
    let major: u32 = field("VERSION_ID")
        .split('.')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(u32::MAX);
    match field("ID") {
        "debian" if major <= 12 => {
            "the packages 'qemu-system-misc' and 'qemu-system-riscv' of bookworm-backports"
        }
        "ubuntu" if field("VERSION_ID") < "24.10" => "the package 'qemu-system-misc'",
        "fedora" => "the package 'qemu-system-riscv-core'",
        "debian" | "ubuntu" | "arch" => "the package 'qemu-system-riscv'",
        _ => {
            "QEMU 8.2 or later (the package is 'qemu-system-riscv' on Debian and Ubuntu, 'qemu-system-riscv-core' on Fedora)"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_package_is_named_as_the_distribution_calls_it() {
        let of = |id: &str, version: &str| package(&format!("NAME=x\nVERSION_ID=\"{version}\"\nID={id}\n"));
        assert!(of("debian", "12").contains("bookworm-backports"));
        assert_eq!(of("debian", "13"), "the package 'qemu-system-riscv'");
        assert_eq!(of("ubuntu", "24.04"), "the package 'qemu-system-misc'");
        assert_eq!(of("ubuntu", "24.10"), "the package 'qemu-system-riscv'");
        assert_eq!(of("fedora", "42"), "the package 'qemu-system-riscv-core'");
        assert!(package("").contains("on Debian and Ubuntu"));
    }

    #[test]
    fn only_a_program_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PROGRAM);
        fs::write(&path, "").unwrap();
        let search = || search(OsStr::new(PROGRAM), folder.path().as_os_str());
        assert_eq!(search(), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(search(), Some(path));
    }

    #[test]
    fn a_firmware_that_is_not_in_the_catalogue_is_refused() {
        let other = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(
            checked(other.path().to_owned()),
            Err(FindError::Firmware(_))
        ));
    }
}
