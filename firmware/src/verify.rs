//! Compares a file with its catalog entry.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::catalog::find;

/// No firmware comes near this size; a file that does is not read to its end.
const MAX_SIZE: u64 = 64 << 20;

/// Why a file is not the firmware it should be.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The catalog has no such entry.
    #[error("no firmware called {0} is in the catalog")]
    Unknown(String),
    /// The file cannot be read.
    #[error("cannot read firmware {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is larger than any firmware.
    #[error("{} is larger than {MAX_SIZE} bytes and cannot be firmware", .0.display())]
    TooLarge(PathBuf),
    /// The file is another one.
    #[error("{} is not {name} of the catalog: sha256 {found}, expected {expected}", path.display())]
    Differs {
        /// The entry.
        name: String,
        /// The file.
        path: PathBuf,
        /// The file's hash.
        found: String,
        /// The catalog's hash.
        expected: String,
    },
}

/// Checks that `path` is the image that the catalog calls `name`.
pub fn verify(name: &str, path: &Path) -> Result<(), VerifyError> {
    let image = find(name).ok_or_else(|| VerifyError::Unknown(name.to_owned()))?;
    let found = hash(path)?;
    if found == image.sha256 {
        return Ok(());
    }
    Err(VerifyError::Differs {
        name: name.to_owned(),
        path: path.to_owned(),
        found,
        expected: image.sha256,
    })
}

fn hash(path: &Path) -> Result<String, VerifyError> {
    let unreadable = |source| VerifyError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(VerifyError::TooLarge(path.to_owned()));
    }
    Ok(Sha256::digest(&bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_differs_is_refused_with_both_hashes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = verify("opensbi-tcg", file.path()).unwrap_err().to_string();
        assert!(
            said.contains("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            "{said}"
        );
        assert!(said.contains(&find("opensbi-tcg").unwrap().sha256), "{said}");
    }

    #[test]
    fn a_name_that_is_not_in_the_catalog_is_refused() {
        let said = verify("bios", Path::new("/dev/null")).unwrap_err().to_string();
        assert_eq!(said, "no firmware called bios is in the catalog");
    }

    #[test]
    fn a_missing_file_and_an_endless_one_are_refused() {
        let missing = verify("opensbi-tcg", Path::new("/no/such/file"))
            .unwrap_err()
            .to_string();
        assert_eq!(missing, "cannot read firmware /no/such/file");
        let endless = verify("opensbi-tcg", Path::new("/dev/zero"))
            .unwrap_err()
            .to_string();
        assert_eq!(
            endless,
            "/dev/zero is larger than 67108864 bytes and cannot be firmware"
        );
    }
}
