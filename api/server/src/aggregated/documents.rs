//! What kube-apiserver asks a server behind it, to tell its own clients what there is.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};

use crate::subresources::{GROUP, RESOURCES, Refused, VERSIONS, group, kind_of};

/// The kind of answer that newer clients prefer to one document per version.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub(super) async fn paths() -> Json<Value> {
    let versions = VERSIONS.map(|version| format!("/apis/{GROUP}/{version}"));
    let rest = [
        "/apis",
        "/healthz",
        "/livez",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
    ];
    let mut paths: Vec<String> = rest.map(str::to_owned).to_vec();
    paths.push(format!("/apis/{GROUP}"));
    paths.extend(versions);
    paths.sort();
    Json(json!({ "paths": paths }))
}

/// `GET /apis`: all in one, where that is understood, or which groups there are.
pub(super) async fn groups(headers: HeaderMap) -> Response {
    let accepts = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok());
    let mut wanted = accepts.flat_map(|accept| accept.split(','));
    if !wanted.any(|wanted| same_type(wanted, AGGREGATED)) {
        let groups = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]});
        return Json(groups).into_response();
    }
    let versions = VERSIONS
        .map(|version| json!({"version": version, "freshness": "Current", "resources": discovered(version)}));
    let groups = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": [{"metadata": {"name": GROUP, "creationTimestamp": null}, "versions": versions}],
    });
    (
        [(CONTENT_TYPE, HeaderValue::from_static(AGGREGATED))],
        Json(groups),
    )
        .into_response()
}

fn same_type(one: &str, other: &str) -> bool {
    let parts = |text: &str| -> Vec<String> {
        let parts = text.split(';').map(|part| part.trim().to_owned());
        let mut parts: Vec<String> = parts.filter(|part| !part.starts_with("q=")).collect();
        parts.sort();
        parts
    };
    parts(one) == parts(other)
}

/// Each resource that has subresources; by itself it is in another group.
fn discovered(version: &str) -> Vec<Value> {
    let mut parents: Vec<&str> = RESOURCES.iter().map(|(resource, ..)| *resource).collect();
    parents.dedup();
    let parent = |parent: &&str| {
        let kind = json!({"group": GROUP, "version": version, "kind": kind_of(parent)});
        let below = RESOURCES.iter().filter(|(resource, ..)| resource == parent);
        let below = below.map(|(_, subresource, verb)| {
            json!({"subresource": subresource, "responseKind": kind, "verbs": [verb]})
        });
        json!({
            "resource": parent, "responseKind": kind, "scope": "Namespaced", "singularResource": "", "verbs": [],
            "subresources": below.collect::<Vec<_>>(),
        })
    };
    parents.iter().map(parent).collect()
}

pub(super) async fn openapi_v2() -> Json<Value> {
    let paths: Map<String, Value> = VERSIONS
        .iter()
        .flat_map(|version| operations(version, swagger_name))
        .collect();
    Json(json!({"swagger": "2.0", "info": info(), "paths": paths}))
}

pub(super) async fn openapi_v3() -> Json<Value> {
    let path = |version: &str| {
        let url = format!(
            "/openapi/v3/apis/{GROUP}/{version}?hash={}",
            env!("CARGO_PKG_VERSION")
        );
        (
            format!("apis/{GROUP}/{version}"),
            json!({"serverRelativeURL": url}),
        )
    };
    let paths: Map<String, Value> = VERSIONS.into_iter().map(path).collect();
    Json(json!({ "paths": paths }))
}

pub(super) async fn openapi_v3_of(Path((group, version)): Path<(String, String)>) -> Response {
    if group != GROUP || !VERSIONS.contains(&version.as_str()) {
        return Refused::no_such_path().into_response();
    }
    let paths: Map<String, Value> = operations(&version, openapi_name).collect();
    Json(json!({"openapi": "3.0.0", "info": info(), "paths": paths})).into_response()
}

fn info() -> Value {
    json!({"title": "rvm", "version": env!("CARGO_PKG_VERSION")})
}

/// The paths of one version, with what can be done there; `name` says how a parameter of a path is described.
fn operations(version: &str, name: fn(&str) -> Value) -> impl Iterator<Item = (String, Value)> {
    let version = version.to_owned();
    RESOURCES.iter().map(move |(resource, subresource, verb)| {
        let path = format!("/apis/{GROUP}/{version}/namespaces/{{namespace}}/{resource}/{{name}}/{subresource}");
        let method = if *verb == "get" { "get" } else { "put" };
        let operation = json!({
            "operationId": format!("{version}-{resource}-{subresource}"),
            "parameters": [name("namespace"), name("name")],
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": verb,
            "x-kubernetes-group-version-kind": {"group": GROUP, "version": version, "kind": kind_of(resource)},
        });
        (path, json!({ method: operation }))
    })
}

fn swagger_name(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "type": "string"})
}

fn openapi_name(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_types_parameters_means_nothing() {
        let asked = " application/json;as=APIGroupDiscoveryList;g=apidiscovery.k8s.io;v=v2;q=0.9";
        assert!(same_type(asked, AGGREGATED));
        assert!(!same_type("application/json", AGGREGATED));
        assert!(!same_type(&asked.replace("v=v2", "v=v2beta1"), AGGREGATED));
    }

    #[test]
    fn every_subresource_is_discovered_and_described() {
        let discovered = discovered("v1");
        let below = discovered
            .iter()
            .filter_map(|parent| parent["subresources"].as_array());
        assert_eq!(below.map(Vec::len).sum::<usize>(), RESOURCES.len());
        assert_eq!(operations("v1", openapi_name).count(), RESOURCES.len());
    }
}
