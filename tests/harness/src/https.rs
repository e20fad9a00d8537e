//! One request over TLS, byte for byte, as a program sends it that goes round kube-apiserver.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::certificates::Pair;

/// How long it may be silent.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server, and whom it has to be.
#[derive(Debug)]
pub struct Server<'a> {
    /// Where it is.
    pub address: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Who signs its certificate, PEM.
    pub authority: &'a [u8],
}

impl Server<'_> {
    /// Gets a path with these headers, and this certificate if one is shown; the whole answer.
    ///
    /// # Errors
    /// There is none: who shows a wrong certificate gets none.
    pub fn get(&self, path: &str, headers: &str, shown: Option<&Pair>) -> Result<String> {
        self.ask("GET", path, headers, shown)
    }

    /// The same, by another method, with an empty object where that takes something.
    ///
    /// # Errors
    /// As for [`Server::get`].
    pub fn ask(&self, method: &str, path: &str, headers: &str, shown: Option<&Pair>) -> Result<String> {
        let body = if method == "GET" { "" } else { "{}" };
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(self.name.to_owned())?;
        let tls = ClientConnection::new(Arc::new(self.config(shown)?), name)?;
        let mut stream = StreamOwned::new(tls, stream);
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            self.name,
            body.len(),
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).context("no answer")?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    pub(crate) fn config(&self, shown: Option<&Pair>) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(self.authority) {
            roots.add(authority?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(roots);
        let Some(pair) = shown else {
            return Ok(config.with_no_client_auth());
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&pair.certificate)?.collect();
        let key = PrivateKeyDer::from_pem_file(&pair.key)?;
        Ok(config.with_client_auth_cert(chain?, key)?)
    }
}
