//! Certificates of a test: an authority, servers and clients, as PEM files in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// Whoever signs.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, where they lie.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What a certificate says of its holder.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'a> {
    /// Who: a user's name to Kubernetes.
    pub common: &'a str,
    /// A group, to Kubernetes.
    pub organization: Option<&'a str>,
    /// Addresses and host names at which a server is reached.
    pub hosts: &'a [&'a str],
}

impl Authority {
    /// A new authority, whose certificate is `ca.crt` in the folder.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "rvm tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::write(folder.join("ca.crt"), issuer.pem())?;
        Ok(Self {
            folder: folder.to_owned(),
            issuer,
        })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Makes a certificate, good for both ends of a connection: `NAME.crt` and `NAME.key`.
    ///
    /// # Errors
    /// The file system's.
    pub fn issue(&self, name: &str, names: Names<'_>) -> Result<Pair> {
        let hosts: Vec<String> = names.hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, names.common);
        if let Some(group) = names.organization {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let pair = Pair {
            certificate: self.folder.join(format!("{name}.crt")),
            key: self.folder.join(format!("{name}.key")),
        };
        fs::write(&pair.certificate, certificate.pem())?;
        fs::write(&pair.key, key.serialize_pem())?;
        Ok(pair)
    }

    /// Makes a bare pair of keys, as tokens are signed with: `NAME.key` and `NAME.pub`.
    ///
    /// # Errors
    /// The file system's.
    pub fn keys(&self, name: &str) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let (private, public) = (
            self.folder.join(format!("{name}.key")),
            self.folder.join(format!("{name}.pub")),
        );
        fs::write(&private, key.serialize_pem())?;
        fs::write(&public, key.public_key_pem())?;
        Ok((private, public))
    }
}
