//! The doors of the web console: over TLS for a cluster's users, without it on loopback, where no certificate would be believed.

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
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::WebConsole;
use crate::arrivals::arrive;
use crate::certificates::Identity;
use crate::listen::ListenError;
use crate::tls::{certificates, wrong};

/// Connections that are served at once. A browser has six, and one for each console.
const MAX_CONNECTIONS: usize = 1024;
/// How long a browser may take for its handshake, and for the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
const REQUEST_HEAD: Duration = Duration::from_secs(30);
/// Pause after the system has no more connections to give.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Serves on loopback until the future is dropped.
pub async fn local(listener: TcpListener, console: WebConsole) {
    plain(listener, console.router()).await;
}

/// Serves a router without TLS until the future is dropped.
pub(crate) async fn plain(listener: TcpListener, router: Router) {
    serve(listener, router, || None).await;
}

/// Serves over TLS until the future is dropped, with the certificate of the time.
///
/// # Errors
/// The certificate cannot be used.
pub async fn secured(
    listener: TcpListener,
    console: WebConsole,
    identity: watch::Receiver<Arc<Identity>>,
) -> Result<(), ListenError> {
    let mut now = acceptor(&identity.borrow())?;
    let mut seen = identity;
    let renewed = move || {
        if seen.has_changed().unwrap_or_default() {
            match acceptor(&seen.borrow_and_update()) {
                Ok(renewed) => now = renewed,
                Err(error) => tracing::warn!(%error, "the web console's certificate stays as it was"),
            }
        }
        Some(now.clone())
    };
    serve(listener, console.router(), renewed).await;
    Ok(())
}

fn acceptor(identity: &Identity) -> Result<TlsAcceptor, ListenError> {
    let chain = certificates(identity.pair.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(identity.pair.key.as_bytes()).map_err(|error| wrong(&error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        // A browser that is asked for a certificate asks its user, who has none.
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|error| wrong(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, router: Router, mut tls: impl FnMut() -> Option<TlsAcceptor>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            arrived = arrive(&listener, &places) => match arrived {
                Ok((stream, place)) => {
                    let (router, tls) = (router.clone(), tls());
                    connections.spawn(async move {
                        let _place = place;
                        if let Err(error) = connection(stream, tls, router).await {
                            tracing::debug!(error, "a connection failed");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) -> Result<(), AnyError> {
    stream.set_nodelay(true)?;
    match tls {
        None => speak(stream, router).await,
        Some(tls) => {
            let stream = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await??;
            speak(stream, router).await
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
) -> Result<(), AnyError> {
    let service = service_fn(move |request: Request<Incoming>| answer(router.clone(), request));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    Ok(())
}

async fn answer(router: Router, request: Request<Incoming>) -> Result<Response, Infallible> {
    router.oneshot(request.map(Body::new)).await
}
