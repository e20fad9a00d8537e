//! The OpenAPI v3 documents: what `kubectl explain` reads, and where kubectl looks whether the server checks fields itself.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::resource::Resource;

/// The index, and one document for each group and version.
#[derive(Debug)]
pub(crate) struct OpenApi {
    pub(crate) index: Value,
    /// (`api/v1` or `apis/{group}/{version}`, document)
    pub(crate) documents: Vec<(String, Value)>,
}

impl OpenApi {
    pub(crate) fn of<'a>(resources: impl Iterator<Item = &'a Resource>) -> Self {
        let mut documents: Vec<(String, Value)> = Vec::new();
        for resource in resources {
            let path = root(resource);
            let at = documents
                .iter()
                .position(|(known, _)| *known == path)
                .unwrap_or_else(|| {
                    documents.push((path, empty()));
                    documents.len() - 1
                });
            add(&mut documents[at].1, resource);
        }
        let entry = |(path, document): &(String, Value)| {
            let mut hasher = DefaultHasher::new();
            document.to_string().hash(&mut hasher);
            let url = format!("/openapi/v3/{path}?hash={:016X}", hasher.finish());
            (path.clone(), json!({ "serverRelativeURL": url }))
        };
        let paths: Map<String, Value> = documents.iter().map(entry).collect();
        Self {
            index: json!({ "paths": paths }),
            documents,
        }
    }
}

/// Settings under which definitions refer to each other as OpenAPI wants it.
pub(crate) fn settings() -> SchemaSettings {
    let mut settings = SchemaSettings::openapi3();
    settings.meta_schema = None;
    settings
}

fn root(resource: &Resource) -> String {
    if resource.group.is_empty() {
        format!("api/{}", resource.version)
    } else {
        format!("apis/{}/{}", resource.group, resource.version)
    }
}

fn empty() -> Value {
    let mut generator = settings().into_generator();
    let _ = generator.subschema_for::<ObjectMeta>();
    json!({
        "openapi": "3.0.0",
        "info": {"title": "rvm", "version": env!("CARGO_PKG_VERSION")},
        "paths": {},
        "components": {"schemas": generator.take_definitions(true)},
    })
}

fn add(document: &mut Value, resource: &Resource) {
    let schemas = &mut document["components"]["schemas"];
    for (name, definition) in &resource.definitions {
        schemas[name] = definition.clone();
    }
    let own = &mut schemas[&resource.definition];
    own["x-kubernetes-group-version-kind"] = json!([resource.group_version_kind()]);
    own["properties"]["apiVersion"] =
        json!({"type": "string", "description": "Version of this kind of object."});
    own["properties"]["kind"] = json!({"type": "string", "description": "The kind of object."});
    let metadata = format!("#/components/schemas/{}", ObjectMeta::schema_name());
    own["properties"]["metadata"] =
        json!({"allOf": [{"$ref": metadata}], "description": "Standard object's metadata."});

    let scope = if resource.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let collection = format!("/{}{scope}/{}", root(resource), resource.plural);
    let single = format!("{collection}/{{name}}");
    let paths = &mut document["paths"];
    paths[&collection] = json!({
        "get": operation(resource, "list", &["limit", "continue", "labelSelector", "fieldSelector", "watch", "resourceVersion"]),
        "post": operation(resource, "post", &["dryRun", "fieldManager", "fieldValidation"]),
    });
    paths[&single] = json!({
        "get": operation(resource, "get", &[]),
        "put": operation(resource, "put", &["dryRun", "fieldManager", "fieldValidation"]),
        "patch": operation(resource, "patch", &["dryRun", "fieldManager", "fieldValidation"]),
        "delete": operation(resource, "delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"]),
    });
}

fn operation(resource: &Resource, action: &str, parameters: &[&str]) -> Value {
    let parameter = |name: &&str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    let answer = json!({"$ref": format!("#/components/schemas/{}", resource.definition)});
    json!({
        "operationId": format!("{action}{}", resource.kind),
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": resource.group_version_kind(),
        "parameters": parameters.iter().map(parameter).collect::<Vec<_>>(),
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": answer}}}},
    })
}
