//! The door that other machines come to: TLS with certificates on both ends, or, for a cluster's users, on ours.
//!
//! ```text
//!   connection ──a turn──► handshake, in time ──CA, then name──► one of so many guests ──► the gRPC server
//! ```
//!
//! Who has not shown a certificate yet has a turn of its own and no place: strangers cannot take the places of those who
//! may come in. At the door of users, who may have tokens instead, a place is for half a minute, until it is known who they are. Each step that
//! fails ends that one connection and nothing else.

mod guest;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::arrivals::arrive;
use crate::listen::ListenError;
pub(crate) use guest::{Guest, Peer};

/// Connections that are served at once; each may have many streams.
const MAX_CONNECTIONS: usize = 256;

/// Connections that are asked for a certificate at once; the others wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 128;

/// How long a peer may take to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a connection may last on which nobody has said who they are.
const INTRODUCTION: Duration = Duration::from_secs(30);

/// Pause after the system has no more connections to give.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// The certificates of a server that asks for its clients' too; PEM files all.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's own certificate, with what it was signed by.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
    /// Who signs the clients' certificates. Nobody gets in without one.
    pub client_ca: PathBuf,
    /// Which of these clients get in, by a name in their certificate; all of them where there is none.
    pub clients: Vec<String>,
}

/// A listener for those with a certificate; or for anybody, where each request says who sends it.
pub struct TlsDoor {
    listener: TcpListener,
    config: watch::Receiver<Option<Arc<ServerConfig>>>,
    admits: Admits,
}

/// Who gets a place.
#[derive(Clone)]
enum Admits {
    /// Whose certificate has one of these names; anybody with a certificate, where there are none.
    Named(Arc<[String]>),
    /// Anybody, for as long as it takes to say who they are.
    Anybody,
}

// === impl TlsFiles ===

impl TlsFiles {
    /// What is wrong, with where to look.
    fn name(&self, error: &ListenError) -> ListenError {
        let [certificate, key, client_ca] =
            [&self.certificate, &self.key, &self.client_ca].map(|path| path.display());
        wrong(&format_args!(
            "'{certificate}', '{key}' or '{client_ca}': {error}"
        ))
    }
}

// === impl TlsDoor ===

impl TlsDoor {
    /// A door at this listener.
    ///
    /// # Errors
    /// [`ListenError::Identity`] and [`ListenError::Certificates`]: the files cannot be read, or do not fit together.
    pub fn new(listener: TcpListener, files: &TlsFiles) -> Result<Self, ListenError> {
        let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
        let config = server_config(&certificate, &key, &read(&files.client_ca)?);
        let config = config.map_err(|error| files.name(&error))?;
        let (_, config) = watch::channel(Some(Arc::new(config)));
        Ok(Self::renewed(listener, config, files.clients.clone()))
    }

    /// A door whose certificates change while it is open; closed for as long as there are none. Each connection goes by those that
    /// it found.
    pub fn renewed(
        listener: TcpListener,
        config: watch::Receiver<Option<Arc<ServerConfig>>>,
        clients: Vec<String>,
    ) -> Self {
        Self {
            listener,
            config,
            admits: Admits::Named(clients.into()),
        }
    }

    /// A door for anybody, certificate or not: who they are is asked of each request, and has to be known soon.
    pub(crate) fn for_anybody(
        listener: TcpListener,
        config: watch::Receiver<Option<Arc<ServerConfig>>>,
    ) -> Self {
        Self {
            listener,
            config,
            admits: Admits::Anybody,
        }
    }

    /// Those who were let in. Ends when what is returned is dropped.
    pub(crate) fn guests(self) -> ReceiverStream<io::Result<Guest>> {
        let (sender, guests) = mpsc::channel(1);
        tokio::spawn(self.let_in(sender));
        ReceiverStream::new(guests)
    }

    async fn let_in(self, guests: mpsc::Sender<io::Result<Guest>>) {
        let turns = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let arrived = tokio::select! {
                arrived = arrive(&self.listener, &turns) => arrived,
                () = guests.closed() => return,
            };
            let (stream, turn) = match arrived {
                Ok(arrived) => arrived,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(EXHAUSTED).await;
                    continue;
                }
            };
            let Some(config) = self.config.borrow().clone() else {
                tracing::debug!("a connection came before there was a certificate to show");
                continue;
            };
            let (acceptor, admits) = (TlsAcceptor::from(config), self.admits.clone());
            let (guests, places) = (guests.clone(), Arc::clone(&places));
            tokio::spawn(async move {
                let let_in = admits.admit(stream, &acceptor, places).await;
                drop(turn);
                match let_in {
                    // The server has ended meanwhile.
                    Ok(guest) => drop(guests.send(Ok(guest)).await),
                    Err(error) => tracing::debug!(%error, "a connection was not let in"),
                }
            });
        }
    }
}

// === impl Admits ===

impl Admits {
    async fn admit(
        &self,
        stream: TcpStream,
        acceptor: &TlsAcceptor,
        places: Arc<Semaphore>,
    ) -> io::Result<Guest> {
        stream.set_nodelay(true)?;
        let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
        let shown = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first());
        let until = match self {
            Self::Named(names) if shown.is_some_and(|certificate| is_named(certificate, names)) => None,
            Self::Named(_) => {
                return Err(io::Error::other(
                    "its certificate has none of the names that may come in",
                ));
            }
            Self::Anybody => Some(INTRODUCTION),
        };
        let peer = Peer::new(shown);
        let place = places.try_acquire_owned();
        let place = place.map_err(|_| io::Error::other(format!("{MAX_CONNECTIONS} connections are open")))?;
        Ok(Guest::new(stream, peer, until, place))
    }
}

/// Whether a certificate, whose signature was checked, has one of these names: its common name, or an alternative
/// name for hosts, mail or URIs. Where no names are given, all do.
fn is_named(certificate: &CertificateDer<'_>, clients: &[String]) -> bool {
    if clients.is_empty() {
        return true;
    }
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
        return false;
    };
    names(&certificate)
        .iter()
        .any(|name| clients.iter().any(|client| client == name))
}

/// What a certificate calls its holder.
pub(crate) fn common_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
        return Vec::new();
    };
    let common = certificate.subject().iter_common_name();
    let common = common.filter_map(|name| name.as_str().ok());
    common.map(str::to_owned).collect()
}

fn names<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let common = certificate.subject().iter_common_name();
    let common = common.filter_map(|name| name.as_str().ok());
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative.map(|extension| &extension.value.general_names);
    let alternative = alternative.into_iter().flatten().filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some(*name),
        _ => None,
    });
    common.chain(alternative).collect()
}

/// A server that shows this chain and lets in whoever shows a certificate of one of these authorities; PEM all.
pub(crate) fn server_config(
    chain: &[u8],
    key: &[u8],
    authorities: &[u8],
) -> Result<ServerConfig, ListenError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authorities)?, Arc::clone(&provider));
    let verifier = verifier.build().map_err(|error| wrong(&error))?;
    configure(chain, key, verifier)
}

/// A server that shows this chain, asks for a certificate of one of these authorities, if there are some, and does without; PEM all.
pub(crate) fn server_config_for_anybody(
    chain: &[u8],
    key: &[u8],
    authorities: Option<&[u8]>,
) -> Result<ServerConfig, ListenError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = match authorities {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(authorities) => WebPkiClientVerifier::builder_with_provider(roots(authorities)?, provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| wrong(&error))?,
    };
    configure(chain, key, verifier)
}

fn configure(
    chain: &[u8],
    key: &[u8],
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, ListenError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong(&error))?;
    let chain = certificates(chain)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key)
        })
        .map_err(|error| wrong(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// These authorities, PEM, of which there must be one.
pub(crate) fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, ListenError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem)? {
        roots.add(authority).map_err(|error| wrong(&error))?;
    }
    Ok(Arc::new(roots))
}

/// The certificates of a PEM text, of which there must be one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ListenError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| wrong(&error))?;
    if found.is_empty() {
        return Err(wrong(&"there is no certificate"));
    }
    Ok(found)
}

pub(crate) fn wrong(why: &dyn std::fmt::Display) -> ListenError {
    ListenError::Certificates(why.to_string())
}

fn read(path: &Path) -> Result<Vec<u8>, ListenError> {
    fs::read(path).map_err(|source| ListenError::Identity {
        path: path.to_owned(),
        source,
    })
}
