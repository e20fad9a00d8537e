//! What is built into the program for browsers: pages, styles, scripts and the terminal that others wrote (`web/vendor`).

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::subresources::Refused;

/// What a browser may do with what we serve: our own scripts and styles, and questions to this server. Nothing inline, nothing of others.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

/// A file: where it is, what it is, what is in it.
pub(super) type Page = (&'static str, &'static str, &'static [u8]);

macro_rules! pages {
    ($($path:literal is $kind:ident),* $(,)?) => {
        [$(($path, $kind, include_bytes!(concat!("../../web/", $path)))),*]
    };
}

/// All that there is.
pub(super) const PAGES: [Page; 17] = pages![
    "index.html" is HTML,
    "app.css" is STYLE,
    "app.js" is SCRIPT,
    "api.js" is SCRIPT,
    "elements.js" is SCRIPT,
    "icon.svg" is PICTURE,
    "link.js" is SCRIPT,
    "list.js" is SCRIPT,
    "login.js" is SCRIPT,
    "machine.js" is SCRIPT,
    "terminal.js" is SCRIPT,
    "usage.js" is SCRIPT,
    "yaml.js" is SCRIPT,
    "vendor/xterm/xterm.mjs" is SCRIPT,
    "vendor/xterm/addon-fit.mjs" is SCRIPT,
    "vendor/xterm/xterm.css" is STYLE,
    "vendor/xterm/LICENSE" is TEXT,
];

/// `GET /`
pub(super) fn index() -> Response {
    file("index.html", &HeaderMap::new())
}

/// `GET /app.js` and the like
pub(super) async fn page(Path(path): Path<String>, headers: HeaderMap) -> Response {
    file(&path, &headers)
}

fn file(path: &str, asked: &HeaderMap) -> Response {
    let Some((_, kind, bytes)) = PAGES.iter().find(|(at, ..)| *at == path) else {
        return Refused::no_such_path().into_response();
    };
    let tag = tag(bytes);
    // Asked for each time, so that the pages are those of the program that answers; sent only where they have changed.
    let known = asked.get(header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, (*kind).to_owned()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::ETAG, tag),
    ];
    (headers, *bytes).into_response()
}

/// A name for what is in a file, the same in every process of this build.
fn tag(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

/// Says of an answer what a browser may do with it.
pub(super) fn guard(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let kept = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(kept);
}
