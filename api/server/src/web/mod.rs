//! The web console: pages for a browser, and the way from them to the Kubernetes API that everybody else uses, too.
//!
//! ```text
//!   browser ──GET /, /app.js …──────────────────────────► pages   what is built into the program; secrets of nobody
//!      │
//!      └────/apis/kubevirt.io/…, websockets, and a token─► token ──► forward ──► kube-apiserver, as that user and nobody else
//!                                                                          └──► local mode's own API, in process
//! ```
//!
//! Life of a request: its `Host` and `Origin` are looked at, so that no page of another server speaks with the browser's voice. A page is
//! given to anybody, since it holds nothing but the question for a token. Whatever is asked of the API needs a bearer token, in the
//! header or, as Kubernetes has it for websockets, as a subprotocol. In a cluster the token goes on to kube-apiserver, which knows whose it
//! is and what they may; in local mode it is the one that the handler has made.
//!
//! Invariants: the server keeps no session and sets no cookie. What it asks of the cluster it asks with the user's token, never with
//! an account of its own. Nothing that it serves names another host.

mod forward;
mod pages;
mod serve;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use kube::Client;

use crate::subresources::Refused;
pub(crate) use serve::plain;
pub use serve::{local, secured};
pub use token::{OwnToken, announce, withdraw};

/// Where the pages' questions go, and with whose right.
#[derive(Clone)]
pub struct WebConsole {
    /// Without an identity of its own in a cluster.
    behind: Client,
    door: Door,
}

/// Whose tokens are good.
#[derive(Clone)]
enum Door {
    /// The cluster's users', by the cluster's word, at any name.
    Cluster,
    /// One that we have made, for whoever can read it, on this machine.
    Own(Arc<OwnToken>),
}

// === impl WebConsole ===

impl WebConsole {
    /// In front of a cluster. Nothing of the configuration's own identity is used.
    ///
    /// # Errors
    /// Its address or its authority cannot be used.
    pub fn of_cluster(mut config: kube::Config) -> kube::Result<Self> {
        config.auth_info = kube::config::AuthInfo::default();
        // Watches and consoles may be silent.
        config.read_timeout = None;
        config.write_timeout = None;
        Ok(Self {
            behind: Client::try_from(config)?,
            door: Door::Cluster,
        })
    }

    /// In front of local mode's own API, for whoever has the token.
    pub fn of_local_mode(api: Router, token: Arc<OwnToken>) -> Self {
        Self {
            behind: Client::new(api, "default"),
            door: Door::Own(token),
        }
    }

    /// The pages, and what they ask.
    pub fn router(self) -> Router {
        Router::new()
            .route("/", get(|| async { pages::index() }))
            .route("/api/{*path}", any(ask))
            .route("/apis/{*path}", any(ask))
            .route("/{*path}", get(pages::page))
            .fallback(|| async { Refused::no_such_path() })
            .layer(middleware::from_fn_with_state(self.clone(), guard))
            .with_state(self)
    }
}

/// Passes on what a page asks, if it shows a token.
async fn ask(State(console): State<WebConsole>, request: Request) -> Response {
    let Some(token) = token::shown(request.headers()) else {
        return nobody("a bearer token is needed");
    };
    let passed_on = match &console.door {
        Door::Own(own) if !own.is(&token) => return nobody("this is not the token"),
        Door::Own(_) => None,
        Door::Cluster => Some(token.as_str()),
    };
    forward::pass_on(&console.behind, passed_on, request).await
}

fn nobody(why: &str) -> Response {
    let mut answer = Refused::unauthorized(why).into_response();
    let bearer = HeaderValue::from_static("Bearer");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
    answer
}

/// Lets nobody in through the browser of somebody else, and says of every answer what a browser may do with it.
async fn guard(State(console): State<WebConsole>, request: Request, next: Next) -> Response {
    if !is_ours(request.headers(), &console.door) {
        return (StatusCode::FORBIDDEN, "this server is not meant to be reached so").into_response();
    }
    let mut answer = next.run(request).await;
    pages::guard(answer.headers_mut());
    answer
}

/// Whether a request names this server, and comes from a page of this server if it comes from one.
fn is_ours(headers: &HeaderMap, door: &Door) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else {
        return false;
    };
    if matches!(door, Door::Own(_)) && !is_loopback(host) {
        return false;
    }
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, origin)| origin == host)
    })
}

/// Whether `host[:port]` is this machine's own name for itself.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    ["127.0.0.1", "[::1]", "localhost"].contains(&name)
}

#[cfg(test)]
mod tests;
