//! Where an image of the catalog is on this machine.

use std::env;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::catalog::{Image, find};
use crate::verify::{VerifyError, verify};

/// Names a folder with images, each called as the catalog calls it.
pub const FOLDER_VARIABLE: &str = "RVM_FIRMWARE";

/// Why an image cannot be used.
#[derive(Debug, Error)]
pub enum LocateError {
    /// Neither in the folder nor where its package puts it.
    #[error("no {name} in {FOLDER_VARIABLE} and no '{}': install the package '{package}', or name a file", installed.display())]
    Missing {
        /// The image.
        name: String,
        /// Where its package puts it.
        installed: PathBuf,
        /// Its package.
        package: String,
    },
    /// It is there, but another one.
    #[error(transparent)]
    Other(#[from] VerifyError),
}

/// The file of the image called `name`, checked: in the folder that [`FOLDER_VARIABLE`] names, or where its package
/// installs it.
///
/// # Errors
/// When it is not there, or is not what the catalog has; a file that is named itself is not checked.
pub fn locate(name: &str) -> Result<PathBuf, LocateError> {
    let folder = env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty());
    search(name, folder.as_deref().map(Path::new), Path::new("/"))
}

fn search(name: &str, folder: Option<&Path>, root: &Path) -> Result<PathBuf, LocateError> {
    let image = find(name).ok_or_else(|| VerifyError::Unknown(name.to_owned()))?;
    let installed = root.join(&image.path);
    let in_folder = folder.map(|folder| folder.join(image.file_name()));
    let there = in_folder
        .into_iter()
        .chain([installed.clone()])
        .find(|path| path.is_file());
    let Some(path) = there else {
        return Err(LocateError::Missing {
            name: image.name,
            installed,
            package: image.package,
        });
    };
    verify(name, &path)?;
    Ok(path)
}

impl Image {
    /// The file's name in a folder of images: the catalog's name with the ending that the file has in its package.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self.path.extension() {
            Some(ending) => format!("{}.{}", self.name, ending.to_string_lossy()),
            None => self.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_nowhere_is_refused_with_its_package() {
        let root = tempfile::tempdir().unwrap();
        let error = search("uboot", Some(root.path()), root.path())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("no uboot in RVM_FIRMWARE and no '"), "{error}");
        assert!(
            error.ends_with("install the package 'u-boot-qemu', or name a file"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_not_the_catalog_s_is_refused_wherever_it_is() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("uboot.bin"), "another one").unwrap();
        let error = search("uboot", Some(root.path()), root.path()).unwrap_err();
        assert!(
            matches!(error, LocateError::Other(VerifyError::Differs { .. })),
            "{error}"
        );
        let error = search("bios", None, root.path()).unwrap_err();
        assert!(
            matches!(error, LocateError::Other(VerifyError::Unknown(_))),
            "{error}"
        );
    }
}
