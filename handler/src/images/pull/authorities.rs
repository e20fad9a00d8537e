//! Who signs for one registry, besides those whom the system knows: the certificates in its folder, as
//! `containers-certs.d(5)` has them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Most files in a folder, and largest of them.
const MAX_FILES: usize = 256;
const MAX_FILE: u64 = 1 << 20;

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// Not readable.
    #[error("the certificates in '{0}' cannot be read")]
    Read(PathBuf, #[source] io::Error),
    /// Something else than certificates.
    #[error("'{0}' holds no PEM certificates of at most {MAX_FILE} bytes")]
    Form(PathBuf),
    /// What would show a registry who we are.
    #[error("'{0}' is a client's certificate or key, which is not supported: only *.crt is")]
    Client(PathBuf),
    /// More than [`MAX_FILES`].
    #[error("'{0}' holds more than {MAX_FILES} files")]
    TooMany(PathBuf),
}

/// Reads all certificates of a folder, as DER; one that is not there holds none.
///
/// # Errors
/// Any [`AuthoritiesError`].
pub fn read(folder: &Path) -> Result<Vec<Vec<u8>>, AuthoritiesError> {
    let failed = |error| AuthoritiesError::Read(folder.to_owned(), error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut certificates = Vec::new();
    for (number, entry) in entries.enumerate() {
        if number == MAX_FILES {
            return Err(AuthoritiesError::TooMany(folder.to_owned()));
        }
        let path = entry.map_err(failed)?.path();
        match path.extension().and_then(|kind| kind.to_str()) {
            Some("crt") => certificates.extend(of_file(&path)?),
            Some("cert" | "key") => return Err(AuthoritiesError::Client(path)),
            _ => {}
        }
    }
    Ok(certificates)
}

fn of_file(path: &Path) -> Result<Vec<Vec<u8>>, AuthoritiesError> {
    let mut pem = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut pem));
    read.map_err(|error| AuthoritiesError::Read(path.to_owned(), error))?;
    let bad = || AuthoritiesError::Form(path.to_owned());
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem)
        .map(|certificate| certificate.map(|der| der.to_vec()))
        .collect();
    let all = all.map_err(|_| bad())?;
    if all.is_empty() || pem.len() as u64 > MAX_FILE {
        return Err(bad());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(name: &str, content: &str) -> Result<usize, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), content).unwrap();
        let read = read(folder.path()).map(|all| all.len());
        read.map_err(|error| {
            error
                .to_string()
                .replace(&folder.path().display().to_string(), "DIR")
        })
    }

    #[test]
    fn all_certificates_of_a_folder_are_read_and_other_files_are_not() {
        let one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(read_of("ca.crt", &one.repeat(2)), Ok(2));
        assert_eq!(read_of("README", "?"), Ok(0));
        assert_eq!(read(Path::new("/nonexistent")).unwrap().len(), 0);
    }

    #[test]
    fn what_is_no_certificate_or_for_clients_is_refused_by_its_name() {
        let empty = read_of("ca.crt", "?").unwrap_err();
        assert!(
            empty.starts_with("'DIR/ca.crt' holds no PEM certificates"),
            "{empty}"
        );
        let client = read_of("client.key", "?").unwrap_err();
        assert!(client.starts_with("'DIR/client.key' is a client's"), "{client}");
    }
}
