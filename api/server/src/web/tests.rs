//! What the web console gives to whom, without a browser.

use axum::body::Body;
use http::Request;
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use super::*;

/// What others wrote, as it came from them: `web/vendor/README.md` says from where.
const VENDORED: [(&str, &str); 4] = [
    (
        "vendor/xterm/LICENSE",
        "b569f629d00f2626a8100df2a1798210535621e42164dfd426a6fe5aac7b0ccd",
    ),
    (
        "vendor/xterm/addon-fit.mjs",
        "2d87e1bddc73be9111de8beee5370c3bb7aac9c94e18e6f245f02ca741ef1769",
    ),
    (
        "vendor/xterm/xterm.css",
        "854a7c0fb70e8b1a083c16797ab827299fb18744f5ad34f227b48337e33293c6",
    ),
    (
        "vendor/xterm/xterm.mjs",
        "b336ec65a086c056d4804b3d4c2347da5663d3f23c3f25be866467bd8857ad59",
    ),
];

/// An API that tells what reached it.
fn api() -> Router {
    Router::new().fallback(|request: Request<Body>| async move {
        format!(
            "{} {}",
            request.uri(),
            request.headers().contains_key(header::AUTHORIZATION)
        )
    })
}

struct Asked {
    code: u16,
    headers: HeaderMap,
    said: String,
}

async fn ask(console: &Router, path: &str, headers: &[(&str, &str)]) -> Asked {
    let mut request = Request::get(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "127.0.0.1:8080");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let answer = console.clone().oneshot(request).await.expect("an answer");
    let (parts, body) = answer.into_parts();
    let said = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    Asked {
        code: parts.status.as_u16(),
        headers: parts.headers,
        said: String::from_utf8_lossy(&said).into_owned(),
    }
}

fn own() -> (Router, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let token = OwnToken::kept(&folder.path().join("token")).expect("a token");
    let bearer = format!("Bearer {}", token.text());
    let console = WebConsole::of_local_mode(api(), Arc::new(token));
    (console.router(), bearer)
}

const LIST: &str = "/apis/kubevirt.io/v1/virtualmachineinstances?limit=1";

#[tokio::test]
async fn the_api_is_asked_for_whoever_shows_the_token_and_for_nobody_else() {
    let (console, bearer) = own();
    let known = ask(&console, LIST, &[("authorization", &bearer)]).await;
    assert_eq!((known.code, known.said), (200, format!("{LIST} false")));
    assert_eq!(known.headers[header::CACHE_CONTROL], "no-store");
    for headers in [
        &[][..],
        &[("authorization", "Bearer guess")],
        &[("cookie", &bearer)],
    ] {
        let stranger = ask(&console, LIST, headers).await;
        assert_eq!(
            (stranger.code, &stranger.headers["www-authenticate"]),
            (401, &HeaderValue::from_static("Bearer"))
        );
        assert!(stranger.said.contains("\"Unauthorized\""), "{}", stranger.said);
    }
    let elsewhere = ask(
        &console,
        "/apis/apps/v1/deployments",
        &[("authorization", &bearer)],
    )
    .await;
    assert_eq!(elsewhere.code, 404);
}

#[tokio::test]
async fn pages_of_other_servers_are_not_answered() {
    let (console, bearer) = own();
    let from = [("authorization", bearer.as_str())];
    let web_ask = ask;
    let ask = async |more: &[(&'static str, &'static str)]| {
        let headers: Vec<_> = from.iter().chain(more).copied().collect();
        web_ask(&console, LIST, &headers).await.code
    };
    assert_eq!(ask(&[("host", "localhost:8080")]).await, 200);
    assert_eq!(ask(&[("origin", "http://127.0.0.1:8080")]).await, 200);
    assert_eq!(ask(&[("origin", "https://evil.example")]).await, 403);
    assert_eq!(ask(&[("origin", "null")]).await, 403);
    assert_eq!(ask(&[("host", "evil.example")]).await, 403);
    assert_eq!(
        ask(&[("host", "localhost:8080"), ("host", "evil.example")]).await,
        403
    );
}

#[tokio::test]
async fn every_page_is_there_and_may_ask_nobody_but_this_server() {
    let (console, _) = own();
    for (path, kind, bytes) in pages::PAGES {
        let page = ask(&console, &format!("/{path}"), &[]).await;
        assert_eq!(
            (page.code, page.headers[header::CONTENT_TYPE].as_bytes()),
            (200, kind.as_bytes()),
            "{path}"
        );
        let policy = page.headers[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .expect("text");
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        let tag = page.headers[header::ETAG].to_str().expect("text");
        let again = ask(&console, &format!("/{path}"), &[("if-none-match", tag)]).await;
        assert_eq!(again.code, 304, "{path}");
        let text = String::from_utf8_lossy(bytes);
        // What others wrote names its authors' pages, in comments; a namespace of drawings is no address.
        let names = text.replace("http://www.w3.org/2000/svg", "");
        assert!(
            path.starts_with("vendor/") || !names.contains("://"),
            "{path} names another host"
        );
        assert!(
            !path.ends_with(".html") || !text.contains("<style") && !text.contains("onclick="),
            "{path}"
        );
    }
    let index = ask(&console, "/", &[]).await;
    assert_eq!((index.code, index.said.contains("<main")), (200, true));
    assert_eq!(ask(&console, "/none.js", &[]).await.code, 404);
    assert_eq!(ask(&console, "/../Cargo.toml", &[]).await.code, 404);
}

#[test]
fn what_others_wrote_is_as_it_came_from_them() {
    let vendored = pages::PAGES
        .iter()
        .filter(|(path, ..)| path.starts_with("vendor/"));
    let mut found: Vec<_> = vendored
        .map(|(path, _, bytes)| {
            let hash: String = Sha256::digest(bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            (*path, hash)
        })
        .collect();
    found.sort();
    assert_eq!(found, VENDORED.map(|(path, hash)| (path, hash.to_owned())));
}
