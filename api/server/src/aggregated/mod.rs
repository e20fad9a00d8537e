//! `subresources.kubevirt.io` as a part of a cluster's API: kube-apiserver's aggregation passes on what users ask of it.
//!
//! ```text
//!   kube-apiserver ──TLS, its certificate, X-Remote-User──► https ──► gate ──► Subresources
//!                                                                      ├─ front_proxy  is it kube-apiserver? for whom?
//!                                                                      ├─ path         for what?
//!                                                                      └─ access       may they? (SubjectAccessReview)
//! ```
//!
//! Life of a request: the handshake takes a certificate of the front proxy's authority, or none. What the group says of itself,
//! how it is, and whether a pod may be evicted (`evictions`), may be asked by anybody. All else comes from the front proxy, which names the user in headers that nobody else is
//! believed; and that user must be allowed to do it, which the cluster is asked anew each time, since a role can change.
//!
//! Invariants: the path that is judged is the path that is served, so one that could be read in two ways is not there at all.

mod documents;
mod front_proxy;
mod https;
mod path;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::StatusCode;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::access;
use crate::certificates::Identity;
use crate::evictions;
use crate::subresources::{Refused, Subresources};
pub use front_proxy::{FrontProxy, FrontProxyError, follow};
use https::Peer;
use path::Asked;

/// What is judged before anything is served.
#[derive(Clone)]
struct Gate {
    client: Client,
    front: watch::Receiver<Arc<FrontProxy>>,
}

/// Serves the group at this listener until the future is dropped, to those whom kube-apiserver lets in.
///
/// # Errors
/// The certificates cannot be used.
pub async fn serve(
    listener: TcpListener,
    client: Client,
    below: Subresources,
    identity: watch::Receiver<Arc<Identity>>,
    front: watch::Receiver<Arc<FrontProxy>>,
) -> Result<(), crate::ListenError> {
    let gate = Gate {
        client,
        front: front.clone(),
    };
    https::serve(listener, router(gate, below), identity, front).await
}

fn router(gate: Gate, below: Subresources) -> Router {
    Router::new()
        .route("/", get(documents::paths))
        .route("/apis", get(documents::groups))
        .route("/healthz", get(healthy))
        .route("/livez", get(healthy))
        .route("/readyz", get(healthy))
        .route("/openapi/v2", get(documents::openapi_v2))
        .route("/openapi/v3", get(documents::openapi_v3))
        .route(
            "/openapi/v3/apis/{group}/{version}",
            get(documents::openapi_v3_of),
        )
        .route(
            evictions::PATH,
            post(evictions::review).with_state(gate.client.clone()),
        )
        .merge(below.router())
        .fallback(|| async { Refused::no_such_path() })
        .layer(middleware::from_fn_with_state(gate, pass))
}

/// Nothing is served before all that is needed is there.
async fn healthy() -> &'static str {
    "ok"
}

/// Lets a request pass, or says in KubeVirt's words why not.
async fn pass(
    State(gate): State<Gate>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let wanted = match Asked::of(request.method(), request.uri().path()) {
        Asked::Open => return next.run(request).await,
        Asked::Nothing => None,
        Asked::Of(wanted) => Some(wanted),
    };
    let front = Arc::clone(&gate.front.borrow());
    let Some(user) = front.user(peer.common_names(), request.headers()) else {
        return (StatusCode::UNAUTHORIZED, "request is not authenticated").into_response();
    };
    let Some(wanted) = wanted else {
        return Refused::no_such_path().into_response();
    };
    match access::review(&gate.client, &user, &wanted).await {
        Ok(()) => next.run(request).await,
        Err(access::Denied::For(reason)) => (StatusCode::UNAUTHORIZED, reason).into_response(),
        Err(access::Denied::Unknown(error)) => {
            tracing::warn!(%error, "the cluster does not say who may do what");
            Refused::internal(error.to_string()).into_response()
        }
    }
}
