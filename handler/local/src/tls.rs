//! TLS as it is used here: 1.2 or newer, one provider, client certificates asked for and checked against our own authority.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why certificates are not taken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No PEM.
    #[error("a certificate or key is not PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// The client verifier cannot be made from the authority.
    #[error("the authority cannot verify clients")]
    Verifier(#[from] VerifierBuilderError),
    /// rustls says no.
    #[error("TLS does not take the certificate")]
    Rustls(#[from] rustls::Error),
}

/// A server that asks for a client certificate of this authority. A client without one still gets in, and is
/// treated as nobody; a client with a wrong one does not.
pub(crate) fn server_config(ca: &str, certificate: &str, key: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).map_err(TlsError::Pem)?)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = verifier.allow_unauthenticated().build()?;
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(TlsError::Pem)?];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(TlsError::Pem)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Whether a certificate is valid now, has more than a third of its life before it, and (where one is given) comes from this authority.
pub(crate) fn good_for_long(pem: &str, ca: Option<&str>) -> bool {
    let check = || -> Option<bool> {
        let (der, ca) = (der(pem)?, ca.map(|ca| der(ca).ok_or(())).transpose().ok()?);
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        let issued_by_ca = match &ca {
            Some(ca) => x509_parser::parse_x509_certificate(ca).ok()?.1.subject() == certificate.issuer(),
            None => true,
        };
        let validity = certificate.validity();
        let (start, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let now = jiff::Timestamp::now().as_second();
        Some(issued_by_ca && start <= now && now < end - (end - start) / 3)
    };
    check().unwrap_or(false)
}

fn der(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}
