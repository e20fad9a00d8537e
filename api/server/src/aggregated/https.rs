//! The door that kube-apiserver comes to: HTTP/1.1, for the sake of websockets, over TLS that asks for a certificate and does
//! without, since who has none may still ask how we are.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::front_proxy::FrontProxy;
use crate::arrivals::arrive;
use crate::certificates::Identity;
use crate::listen::ListenError;
use crate::tls::{certificates, common_names, roots, wrong};

/// Connections that are served at once: each websocket has one.
const MAX_CONNECTIONS: usize = 4096;
/// How long a peer may take for its handshake, and for the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
const REQUEST_HEAD: Duration = Duration::from_secs(30);
/// Pause after the system has no more connections to give.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Who sent a request: what its certificate calls it, where it has shown one of the front proxy's authority.
#[derive(Debug, Clone)]
pub(super) struct Peer(Option<Arc<[String]>>);

// === impl Peer ===

impl Peer {
    /// Its common names; nothing where it is nobody.
    pub(super) fn common_names(&self) -> Option<&[String]> {
        self.0.as_deref()
    }
}

/// Serves `router` until the future is dropped; all its connections end with it. New ones go by the certificates of that time.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    mut identity: watch::Receiver<Arc<Identity>>,
    mut front: watch::Receiver<Arc<FrontProxy>>,
) -> Result<(), ListenError> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut acceptor = acceptor(&identity.borrow_and_update(), &front.borrow_and_update())?;
    loop {
        tokio::select! {
            arrived = arrive(&listener, &places) => match arrived {
                Ok((stream, place)) => {
                    let (acceptor, router) = (acceptor.clone(), router.clone());
                    connections.spawn(async move {
                        let _place = place;
                        if let Err(error) = connection(stream, acceptor, router).await {
                            tracing::debug!(error, "a connection failed");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            },
            // Either sender lives as long as the program.
            Ok(()) = identity.changed() => renew(&mut acceptor, &identity.borrow(), &front.borrow()),
            Ok(()) = front.changed() => renew(&mut acceptor, &identity.borrow(), &front.borrow()),
            Some(_) = connections.join_next() => {}
        }
    }
}

fn renew(now: &mut TlsAcceptor, identity: &Identity, front: &FrontProxy) {
    match acceptor(identity, front) {
        Ok(renewed) => *now = renewed,
        Err(error) => tracing::warn!(%error, "the certificates stay as they were"),
    }
}

fn acceptor(identity: &Identity, front: &FrontProxy) -> Result<TlsAcceptor, ListenError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = roots(front.authority.as_bytes())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let verifier = verifier.allow_unauthenticated().build();
    let verifier = verifier.map_err(|error| wrong(&error))?;
    let chain = certificates(identity.pair.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(identity.pair.key.as_bytes()).map_err(|error| wrong(&error))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key)
        });
    let mut config = config.map_err(|error| wrong(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router) -> Result<(), AnyError> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let shown = stream.get_ref().1.peer_certificates();
    let shown = shown.and_then(|chain| chain.first()).map(common_names);
    let peer = Peer(shown.map(Into::into));
    let service = service_fn(move |request| answer(router.clone(), request, peer.clone()));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    Ok(())
}

async fn answer(router: Router, mut request: Request<Incoming>, peer: Peer) -> Result<Response, Infallible> {
    request.extensions_mut().insert(peer);
    router.oneshot(request.map(Body::new)).await
}
