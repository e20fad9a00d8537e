//! From a page's question to the API's answer, with the user's token and nothing else of theirs or ours.
//!
//! What goes on is listed: paths, methods and headers. The cluster judges each request by the token itself; the list keeps this door from
//! being one to everything that the cluster has.

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use kube::Client;

use super::token;
use crate::subresources::Refused;

/// Most bytes that a request may bring along: options of a verb.
const MAX_BODY: usize = 64 << 10;

/// Below which the pages have business.
const TREES: [&str; 2] = ["/apis/kubevirt.io/v1/", "/apis/subresources.kubevirt.io/v1/"];
/// What they do there.
const METHODS: [Method; 3] = [Method::GET, Method::PUT, Method::DELETE];

/// Headers of a request that the API needs.
const ASKED: [HeaderName; 6] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
];
/// Headers of an answer that a page needs.
const ANSWERED: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_PROTOCOL,
];

/// Passes a request on, and its answer back; a websocket's bytes for as long as both ends like.
pub(super) async fn pass_on(behind: &Client, token: Option<&str>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if !is_for_pages(&parts.method, path) {
        return Refused::no_such_path().into_response();
    }
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let Some(headers) = headers_of(&parts.headers, token) else {
        return Refused::unauthorized("the token is no header's value").into_response();
    };
    let Some(Ok(uri)) = parts.uri.path_and_query().map(|asked| asked.as_str().parse()) else {
        return Refused::no_such_path().into_response();
    };
    let browser = parts.extensions.get::<OnUpgrade>().cloned();
    let mut asked = http::Request::new(kube::client::Body::from(body.to_bytes()));
    *asked.method_mut() = parts.method;
    *asked.uri_mut() = uri;
    *asked.headers_mut() = headers;
    // By this local mode's API, in process, speaks to the browser itself. What our router has found in the path stays here.
    if let Some(browser) = browser.clone() {
        asked.extensions_mut().insert(browser);
    }
    match behind.send(asked).await {
        Ok(answer) => back(answer, browser),
        Err(error) => {
            tracing::warn!(%error, "the API does not answer the web console");
            (StatusCode::BAD_GATEWAY, "the Kubernetes API does not answer").into_response()
        }
    }
}

/// No name of ours needs an escape, so a path with one is there to be read in two ways.
fn is_for_pages(method: &Method, path: &str) -> bool {
    let plain = !path.contains('%')
        && !path
            .split('/')
            .skip(1)
            .any(|part| matches!(part, "" | "." | ".."));
    let events = |path: &str| {
        let rest = path.strip_prefix("/api/v1/namespaces/");
        rest.and_then(|rest| rest.split_once('/'))
            .is_some_and(|(_, what)| what == "events")
    };
    let known = TREES.iter().any(|tree| path.starts_with(tree));
    plain && (known && METHODS.contains(method) || *method == Method::GET && events(path))
}

fn headers_of(asked: &HeaderMap, token: Option<&str>) -> Option<HeaderMap> {
    let mut headers = chosen(asked, &ASKED);
    let protocols: Vec<_> = token::protocols(asked)
        .filter(|protocol| !protocol.starts_with(token::SUBPROTOCOL))
        .collect();
    if !protocols.is_empty() {
        let protocols = HeaderValue::from_str(&protocols.join(", ")).ok()?;
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols);
    }
    if let Some(token) = token {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
    }
    Some(headers)
}

fn chosen(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let chosen = names.iter().filter_map(|name| {
        let value = headers.get(name)?;
        Some((name.clone(), value.clone()))
    });
    chosen.collect()
}

fn back(mut answer: Response<kube::client::Body>, browser: Option<OnUpgrade>) -> Response {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        // In process nobody is between the browser and who answers it.
        let far = answer.extensions_mut().remove::<OnUpgrade>();
        if let Some((browser, far)) = browser.zip(far) {
            tokio::spawn(join(browser, far));
        }
    }
    let (parts, body) = answer.into_parts();
    let mut back = Response::new(Body::new(body));
    *back.status_mut() = parts.status;
    *back.headers_mut() = chosen(&parts.headers, &ANSWERED);
    back
}

/// Moves a websocket's bytes both ways, until both ends are done or either breaks.
async fn join(browser: OnUpgrade, far: OnUpgrade) {
    let (Ok(browser), Ok(far)) = tokio::join!(browser, far) else {
        return;
    };
    let (mut browser, mut far) = (TokioIo::new(browser), TokioIo::new(far));
    // Either end may go away without a word.
    let _ = tokio::io::copy_bidirectional(&mut browser, &mut far).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_pages_need_goes_on() {
        let base = "/apis/kubevirt.io/v1/namespaces/a/virtualmachineinstances/b";
        assert!(is_for_pages(&Method::GET, base));
        assert!(is_for_pages(&Method::DELETE, base));
        assert!(is_for_pages(&Method::GET, "/api/v1/namespaces/a/events"));
        assert!(!is_for_pages(&Method::POST, base));
        assert!(!is_for_pages(&Method::DELETE, "/api/v1/namespaces/a/events"));
        for path in [
            "/api/v1/namespaces/a/secrets",
            "/api/v1/namespaces/a/events/b",
            "/apis/apps/v1/deployments",
            "/apis/kubevirt.io/v1/../../apps",
            "/apis/kubevirt.io/v1/%2e%2e/x",
            "/apis/kubevirt.io/v1//x",
        ] {
            assert!(!is_for_pages(&Method::GET, path), "{path}");
        }
    }

    #[test]
    fn of_a_users_headers_only_the_token_speaks_for_them() {
        let mut asked = HeaderMap::new();
        for (name, value) in [
            ("accept", "application/json"),
            ("x-remote-user", "admin"),
            ("impersonate-user", "admin"),
            ("cookie", "a=b"),
            ("authorization", "Bearer theirs"),
            (
                "sec-websocket-protocol",
                "viewers.rvm.v1, base64url.bearer.authorization.k8s.io.YQ",
            ),
        ] {
            asked.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let on = headers_of(&asked, Some("shown")).expect("headers");
        let mut names: Vec<_> = on.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "authorization", "sec-websocket-protocol"]);
        assert_eq!(on[header::AUTHORIZATION], "Bearer shown");
        assert_eq!(on[header::SEC_WEBSOCKET_PROTOCOL], "viewers.rvm.v1");
        let local = headers_of(&asked, None).expect("headers");
        assert!(!local.contains_key(header::AUTHORIZATION));
    }
}
