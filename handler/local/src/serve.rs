//! The API on a loopback port, for kubectl and virtctl: TLS, a guard at the door, and no client that can hold on to more than its share.
//!
//! The life of a connection: a permit (or it waits in the kernel's queue) → TLS handshake, in time → HTTP/1.1, each request's
//! head in time → the guard → the router. A client that has no certificate is let go after one answer. A client that no longer
//! takes what it asked for is cut off.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::guard;
use crate::identity::Identity;
use crate::limits;
use crate::stall::StallGuard;

/// How often certificates are looked at.
const RENEWAL: Duration = Duration::from_secs(60 * 60);
/// Pause after the system has no more connections to give.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until the future is dropped; all its connections end with it.
pub async fn serve(listener: TcpListener, router: Router, identity: Arc<Identity>) {
    let permits = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut renewal = tokio::time::interval(RENEWAL);
    loop {
        tokio::select! {
            accepted = accept(&listener, &permits) => match accepted {
                Ok((stream, permit)) => {
                    let (router, identity) = (router.clone(), Arc::clone(&identity));
                    connections.spawn(async move {
                        let _permit = permit;
                        if let Err(error) = connection(stream, router, &identity).await {
                            tracing::debug!(error, "a connection failed");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no connection can be accepted");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            },
            _ = renewal.tick() => renew(&identity).await,
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn renew(identity: &Arc<Identity>) {
    let identity = Arc::clone(identity);
    let renewed = tokio::task::spawn_blocking(move || identity.renew()).await;
    if let Ok(Err(error)) = renewed {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the certificates could not be renewed"
        );
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(stream: TcpStream, router: Router, identity: &Identity) -> Result<(), AnyError> {
    stream.set_nodelay(true)?;
    let stream = StallGuard::new(stream, limits::WRITE_STALL);
    let handshake = TlsAcceptor::from(identity.config()).accept(stream);
    let stream = tokio::time::timeout(limits::HANDSHAKE, handshake).await??;
    // The verifier let only certificates of our authority pass.
    let authenticated = stream
        .get_ref()
        .1
        .peer_certificates()
        .is_some_and(|chain| !chain.is_empty());
    let service =
        service_fn(move |request: Request<Incoming>| answer(router.clone(), request, authenticated));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::REQUEST_HEAD)
        .keep_alive(authenticated)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    Ok(())
}

async fn answer(
    router: Router,
    request: Request<Incoming>,
    authenticated: bool,
) -> Result<Response, Infallible> {
    match guard::check(&request, authenticated) {
        Ok(()) => router.oneshot(request.map(Body::new)).await,
        Err(failure) => Ok(failure.into_response()),
    }
}
