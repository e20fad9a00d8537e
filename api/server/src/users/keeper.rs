//! Finds out who sends a request, as kube-apiserver would: by the certificate of its connection, else by its bearer token.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use rustls_pki_types::CertificateDer;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::access::User;
use crate::tls::Peer;

/// Longest bearer token.
const MAX_TOKEN: usize = 16 << 10;
/// Whom every known user is one of.
const AUTHENTICATED: &str = "system:authenticated";

/// Stands at a door, and notes in each request who sends it; at doors where all that is known it stands aside.
#[derive(Clone)]
pub(crate) struct Doorkeeper(Option<Client>);

/// A service behind a doorkeeper.
#[derive(Clone)]
pub(crate) struct Kept<S> {
    keeper: Doorkeeper,
    inner: S,
}

// === impl Doorkeeper ===

impl Doorkeeper {
    /// Asks this cluster.
    pub(crate) fn of(client: Client) -> Self {
        Self(Some(client))
    }

    /// Asks nobody: the door itself says who comes in.
    pub(crate) fn nobody() -> Self {
        Self(None)
    }
}

impl<S> Layer<S> for Doorkeeper {
    type Service = Kept<S>;

    fn layer(&self, inner: S) -> Kept<S> {
        Kept {
            keeper: self.clone(),
            inner,
        }
    }
}

impl<S> Service<Request<Body>> for Kept<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready serves this request, its copy the next.
        let copy = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, copy);
        let Doorkeeper(Some(client)) = self.keeper.clone() else {
            return Box::pin(inner.call(request));
        };
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
            match who(&client, &peer, request.headers()).await {
                Ok(user) => {
                    peer.is_known();
                    request.extensions_mut().insert(user);
                    inner.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

async fn who(client: &Client, peer: &Peer, headers: &HeaderMap) -> Result<User, Status> {
    if let Some(user) = peer.certificate().and_then(named) {
        return Ok(user);
    }
    let token = token(headers)?;
    let review = TokenReview {
        spec: TokenReviewSpec {
            token: Some(token.to_owned()),
            ..TokenReviewSpec::default()
        },
        ..TokenReview::default()
    };
    let api: Api<TokenReview> = Api::all(client.clone());
    let reviewed = api.create(&PostParams::default(), &review).await;
    let status = reviewed
        .map_err(|error| {
            tracing::warn!(%error, "the cluster does not say who somebody is");
            Status::unavailable("the cluster does not say who somebody is")
        })?
        .status
        .unwrap_or_default();
    let known = status.authenticated == Some(true);
    let user = status.user.filter(|_| known).and_then(|user| {
        Some(User {
            name: user.username.filter(|name| !name.is_empty())?,
            uid: user.uid,
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        })
    });
    // The cluster's reasons are for its own log.
    user.ok_or_else(|| Status::unauthenticated("the cluster does not know this token; it may have expired"))
}

/// The user whom a certificate of the cluster's authority names: by the common name; organizations are groups.
fn named(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok());
    let groups = groups.chain([AUTHENTICATED]).map(str::to_owned);
    (!name.is_empty()).then(|| User {
        name: name.to_owned(),
        groups: groups.collect(),
        ..User::default()
    })
}

fn token(headers: &HeaderMap) -> Result<&str, Status> {
    let said = headers.get(AUTHORIZATION).ok_or_else(|| {
        let ways = "show a client certificate of the cluster's authority, or a bearer token (authorization: Bearer …)";
        Status::unauthenticated(format!("nobody knows who asks; {ways}"))
    })?;
    let said = said.to_str().ok().and_then(|said| said.split_once(' '));
    let token = said.filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    let token = token.map(|(_, token)| token.trim());
    let token = token.filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN);
    token.ok_or_else(|| Status::unauthenticated("authorization is no bearer token"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rcgen::{CertificateParams, DnType, KeyPair};
    use tonic::Code;

    use super::*;

    #[test]
    fn a_certificate_names_its_user_and_their_groups() {
        let certificate = |names: &[(DnType, &str)]| {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            for (kind, name) in names {
                params.distinguished_name.push(kind.clone(), *name);
            }
            let key = KeyPair::generate().expect("a key");
            params.self_signed(&key).expect("a certificate").der().clone()
        };
        let user = named(&certificate(&[
            (DnType::CommonName, "ellen"),
            (DnType::OrganizationName, "editors"),
        ]));
        let user = user.expect("a user");
        assert_eq!(
            (user.name.as_str(), user.groups),
            ("ellen", vec!["editors".to_owned(), AUTHENTICATED.to_owned()])
        );
        assert_eq!(
            named(&certificate(&[(DnType::OrganizationName, "editors")])),
            None
        );
    }

    #[test]
    fn only_a_bearer_token_is_one() {
        let read = |said: &str| {
            let said = HeaderValue::from_str(said).expect("a value");
            token(&HeaderMap::from_iter([(AUTHORIZATION, said)]))
                .map(str::to_owned)
                .map_err(|status| status.code())
        };
        assert_eq!(read("Bearer abc"), Ok("abc".to_owned()));
        assert_eq!(read("bearer  abc"), Ok("abc".to_owned()));
        let long = format!("Bearer {}", "x".repeat(MAX_TOKEN + 1));
        for none in ["Basic abc", "Bearer", "Bearer ", "abc", &long] {
            assert_eq!(read(none), Err(Code::Unauthenticated), "{none:.20}");
        }
        assert!(token(&HeaderMap::new()).is_err());
    }
}
