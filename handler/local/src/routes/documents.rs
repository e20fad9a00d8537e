//! What the server says about itself: health, version, what it serves, and how that looks.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::Api;
use crate::status::{Answer, Failure, json};

/// The Kubernetes version whose API this is a part of: what clients compare themselves with.
const KUBERNETES: (&str, &str, &str) = ("1", "34", "v1.34.0");
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// An empty document of this type is a valid one, and all that older kubectls need.
const OPENAPI_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

pub(super) async fn healthy() -> &'static str {
    "ok"
}

pub(super) async fn version() -> Response {
    let (major, minor, git) = KUBERNETES;
    let build = concat!("+rvm-", env!("CARGO_PKG_VERSION"));
    let platform = format!("{}/{}", std::env::consts::OS, go_arch());
    json(
        StatusCode::OK,
        &json!({
            "major": major, "minor": minor, "gitVersion": format!("{git}{build}"), "gitCommit": "",
            "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
            "platform": platform,
        }),
    )
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(super) async fn core(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    discovered(&headers, &api.discovery.core, &api.discovery.core_versions)
}

pub(super) async fn groups(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    discovered(&headers, &api.discovery.groups, &api.discovery.group_list)
}

fn discovered(headers: &HeaderMap, aggregated: &Value, plain: &Value) -> Response {
    let accept = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let wanted = |media: &str| {
        let has = |part: &str| media.split(';').any(|found| found.trim() == part);
        has("as=APIGroupDiscoveryList") && has("v=v2") && has("g=apidiscovery.k8s.io")
    };
    let mut response = if accept.flat_map(|value| value.split(',')).any(wanted) {
        let mut response = json(StatusCode::OK, aggregated);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
        response
    } else {
        json(StatusCode::OK, plain)
    };
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// `/api/v1`, `/apis/{group}` and `/apis/{group}/{version}`; `None` where the path is none of these.
pub(super) fn plain_discovery(api: &Api, path: &str) -> Option<Response> {
    let path = path.trim_matches('/');
    let path = path.strip_prefix("apis/").or_else(|| path.strip_prefix("api/"))?;
    let (group, resources) = (&api.discovery.group, &api.discovery.resources);
    let found = group.iter().chain(resources).find(|(name, _)| name == path);
    found.map(|(_, document)| json(StatusCode::OK, document))
}

pub(super) async fn openapi_v2() -> Response {
    ([(header::CONTENT_TYPE, OPENAPI_V2)], "").into_response()
}

pub(super) async fn openapi_index(State(api): State<Arc<Api>>) -> Response {
    json(StatusCode::OK, &api.openapi.index)
}

pub(super) async fn openapi_document(
    State(api): State<Arc<Api>>,
    Path(path): Path<String>,
) -> Answer<Response> {
    let found = api.openapi.documents.iter().find(|(name, _)| *name == path);
    found
        .map(|(_, document)| json(StatusCode::OK, document))
        .ok_or_else(Failure::no_such_path)
}
