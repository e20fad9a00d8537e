//! Who may come in: a certificate authority of our own, the server's certificate, and the one certificate of the one user.
//!
//! ```text
//!   <state>/tls/ca.pem      key and certificate; signs the other two and nothing else
//!               server.pem  for 127.0.0.1, ::1 and localhost
//!               client.pem  embedded in the kubeconfig
//! ```
//!
//! Each file holds a key and its certificate and is replaced as a whole. Certificates are renewed when a third of their life is
//! left: when the folder is opened, and by the server as it runs. Nothing here is readable by anybody but its owner.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;

use crate::tls;

const CA_YEARS: i32 = 10;
const LEAF_DAYS: i32 = 365;
/// A certificate's life begins a day ago, for clocks that disagree.
const EARLIER: i32 = 1;
const CONTEXT: &str = "rvm-local";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or folder.
    #[error("cannot use {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A certificate that cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// Certificates that TLS does not take.
    #[error("the certificates cannot be used")]
    Use(#[from] tls::TlsError),
}

/// A key and its certificate, as PEM.
#[derive(Clone)]
struct Pair {
    key: String,
    certificate: String,
}

/// All that is used at a time; replaced as a whole on renewal.
struct Material {
    ca: Pair,
    client: Pair,
    config: Arc<ServerConfig>,
}

/// A kubeconfig that was written and is written again on renewal.
type Written = (PathBuf, SocketAddr);

/// The certificates of local mode.
pub struct Identity {
    folder: PathBuf,
    material: Mutex<Arc<Material>>,
    written: Mutex<Vec<Written>>,
}

impl Identity {
    /// Reads the certificates in the state folder, and makes those that are missing or about to expire.
    pub fn open(state_dir: &Path) -> Result<Self, IdentityError> {
        let folder = state_dir.join("tls");
        for path in [state_dir, &folder] {
            crate::private_folder(path).map_err(|source| IdentityError::File {
                path: path.to_owned(),
                source,
            })?;
        }
        let material = Mutex::new(Arc::new(load(&folder)?));
        Ok(Self {
            folder,
            material,
            written: Mutex::default(),
        })
    }

    /// Renews what is about to expire, kubeconfigs included.
    pub fn renew(&self) -> Result<(), IdentityError> {
        let material = load(&self.folder)?;
        let changed = material.client.certificate != self.material().client.certificate;
        *self.material.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(material);
        if changed {
            let written = self
                .written
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            written
                .iter()
                .try_for_each(|(path, server)| self.write_kubeconfig(path, *server))?;
        }
        Ok(())
    }

    /// Writes a kubeconfig for the server at `server`, with all that a client needs inside, readable by its owner only.
    pub fn kubeconfig(&self, path: &Path, server: SocketAddr) -> Result<(), IdentityError> {
        self.write_kubeconfig(path, server)?;
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((path.to_owned(), server));
        Ok(())
    }

    fn write_kubeconfig(&self, path: &Path, server: SocketAddr) -> Result<(), IdentityError> {
        let material = self.material();
        let data = |pem: &str| encode(pem.as_bytes());
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {CONTEXT}\n\
             clusters:\n- name: {CONTEXT}\n  cluster:\n    server: https://{server}\n    certificate-authority-data: {}\n\
             users:\n- name: {CONTEXT}\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n\
             contexts:\n- name: {CONTEXT}\n  context:\n    cluster: {CONTEXT}\n    user: {CONTEXT}\n    namespace: default\n",
            data(&material.ca.certificate),
            data(&material.client.certificate),
            data(&material.client.key),
        );
        write_private(path, text.as_bytes())
    }

    /// What the next connection is made with.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.material().config)
    }

    fn material(&self) -> Arc<Material> {
        Arc::clone(&self.material.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Base64, by way of the Kubernetes type that is written so.
fn encode(bytes: &[u8]) -> String {
    let value = serde_json::to_value(ByteString(bytes.to_vec())).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn load(folder: &Path) -> Result<Material, IdentityError> {
    let ca_path = folder.join("ca.pem");
    let ca = match read(&ca_path).filter(|pair| tls::good_for_long(&pair.certificate, None)) {
        Some(pair) => pair,
        None => keep(&ca_path, make_ca()?)?,
    };
    let server = leaf(folder, "server.pem", &ca, &server_params()?)?;
    let client = leaf(folder, "client.pem", &ca, &client_params()?)?;
    let config = tls::server_config(&ca.certificate, &server.certificate, &server.key)?;
    Ok(Material { ca, client, config })
}

fn leaf(folder: &Path, name: &str, ca: &Pair, params: &CertificateParams) -> Result<Pair, IdentityError> {
    let path = folder.join(name);
    let good = |pair: &Pair| tls::good_for_long(&pair.certificate, Some(&ca.certificate));
    if let Some(pair) = read(&path).filter(good) {
        return Ok(pair);
    }
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key)?)?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    keep(
        &path,
        Pair {
            key: key.serialize_pem(),
            certificate: certificate.pem(),
        },
    )
}

/// A pair from its file; `None` where it is missing or damaged, and a new one has to be made.
fn read(path: &Path) -> Option<Pair> {
    const MARK: &str = "-----BEGIN CERTIFICATE-----";
    let text = std::fs::read_to_string(path).ok()?;
    let (key, certificate) = text.split_at(text.find(MARK)?);
    KeyPair::from_pem(key).ok()?;
    Some(Pair {
        key: key.to_owned(),
        certificate: certificate.to_owned(),
    })
}

fn keep(path: &Path, pair: Pair) -> Result<Pair, IdentityError> {
    write_private(path, format!("{}{}", pair.key, pair.certificate).as_bytes())?;
    Ok(pair)
}

/// Replaces a file as a whole; nobody but its owner can ever read it.
fn write_private(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let write = || -> io::Result<()> {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        // A temporary file is made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| IdentityError::File {
        path: path.to_owned(),
        source,
    })
}

fn make_ca() -> Result<Pair, IdentityError> {
    // Each authority has a name of its own: certificates of an older one are told apart by their issuer.
    let name = format!("rvm-local-ca-{}", uuid::Uuid::new_v4().simple());
    let mut params = lasting(
        CertificateParams::new(Vec::<String>::new())?,
        CA_YEARS * LEAF_DAYS,
    );
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Pair {
        key: key.serialize_pem(),
        certificate: certificate.pem(),
    })
}

fn server_params() -> Result<CertificateParams, IdentityError> {
    let names = ["127.0.0.1", "::1", "localhost"].map(str::to_owned);
    let mut params = lasting(CertificateParams::new(names)?, LEAF_DAYS);
    params.distinguished_name.push(DnType::CommonName, "rvm-local");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn client_params() -> Result<CertificateParams, IdentityError> {
    let mut params = lasting(CertificateParams::new(Vec::<String>::new())?, LEAF_DAYS);
    params
        .distinguished_name
        .push(DnType::CommonName, "rvm-local-user");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn lasting(mut params: CertificateParams, days: i32) -> CertificateParams {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let day = |offset: i32| {
        let date = today.saturating_add(offset.days());
        rcgen::date_time_ymd(
            date.year().into(),
            date.month().unsigned_abs(),
            date.day().unsigned_abs(),
        )
    };
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = day(-EARLIER);
    params.not_after = day(days);
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn secrets_are_for_their_owner_alone() {
        let state = tempfile::tempdir().unwrap();
        let identity = Identity::open(state.path()).unwrap();
        let kubeconfig = state.path().join("kubeconfig");
        identity
            .kubeconfig(&kubeconfig, ([127, 0, 0, 1], 6443).into())
            .unwrap();
        let tls = state.path().join("tls");
        let files = [
            tls.join("ca.pem"),
            tls.join("server.pem"),
            tls.join("client.pem"),
            kubeconfig,
        ];
        assert_eq!(files.map(|path| mode(&path)), [0o600; 4]);
        assert_eq!([mode(state.path()), mode(&tls)], [0o700; 2]);
    }

    #[test]
    fn certificates_are_kept_until_their_authority_changes() {
        let state = tempfile::tempdir().unwrap();
        let first = Identity::open(state.path())
            .unwrap()
            .material()
            .client
            .certificate
            .clone();
        let again = Identity::open(state.path())
            .unwrap()
            .material()
            .client
            .certificate
            .clone();
        assert_eq!(first, again);
        std::fs::remove_file(state.path().join("tls/ca.pem")).unwrap();
        let renewed = Identity::open(state.path())
            .unwrap()
            .material()
            .client
            .certificate
            .clone();
        assert_ne!(first, renewed);
    }

    #[test]
    fn certificate_near_its_end_is_renewed_with_the_kubeconfig() {
        let state = tempfile::tempdir().unwrap();
        let identity = Identity::open(state.path()).unwrap();
        let kubeconfig = state.path().join("kubeconfig");
        identity
            .kubeconfig(&kubeconfig, ([127, 0, 0, 1], 6443).into())
            .unwrap();
        let before = std::fs::read_to_string(&kubeconfig).unwrap();
        let ca = identity.material().ca.clone();
        let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key).unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut nearly_over = lasting(client_params().unwrap(), 30);
        nearly_over.not_before = rcgen::date_time_ymd(2020, 1, 1);
        let certificate = nearly_over.signed_by(&key, &issuer).unwrap().pem();
        keep(
            &state.path().join("tls/client.pem"),
            Pair {
                key: key.serialize_pem(),
                certificate,
            },
        )
        .unwrap();
        identity.renew().unwrap();
        assert_ne!(std::fs::read_to_string(&kubeconfig).unwrap(), before);
    }

    #[test]
    fn damaged_file_is_replaced() {
        let state = tempfile::tempdir().unwrap();
        Identity::open(state.path()).unwrap();
        std::fs::write(state.path().join("tls/server.pem"), "nonsense").unwrap();
        Identity::open(state.path()).unwrap();
        assert!(read(&state.path().join("tls/server.pem")).is_some());
    }
}
