//! The rules of metadata: what a client may say about an object's identity, and what only the server says.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::limits;
use crate::names;
use crate::object::{Object, metadata_mut, metadata_text};
use crate::resource::Resource;
use crate::status::{Answer, Cause, Failure};

/// All the fields that metadata has. `selfLink` is known, and not kept; `managedFields` are written by `fields` alone.
const FIELDS: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "selfLink",
];
/// What the server alone decides once an object exists.
const FIXED: [&str; 7] = [
    "uid",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
    "resourceVersion",
];
/// Letters of generated names: no vowels, so that no words come out.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const GENERATED_LETTERS: usize = 5;
const GENERATED_LONGEST: usize = 63;

/// Checks that a body is an object of this kind, with metadata of the right types, meant for this namespace.
pub(crate) fn check_shape(resource: &Resource, namespace: Option<&str>, body: &mut Value) -> Answer<()> {
    let Some(fields) = body.as_object_mut() else {
        return Err(Failure::bad_request("the body of the request is not an object"));
    };
    for (field, wanted) in [
        ("apiVersion", resource.api_version()),
        ("kind", resource.kind.clone()),
    ] {
        let value = fields.entry(field).or_insert_with(|| json!(wanted));
        if *value != json!(wanted) {
            return Err(Failure::bad_request(format!(
                "the {field} in the data ({value}) does not match the expected {field} ({wanted})"
            )));
        }
    }
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    ObjectMeta::deserialize(&*metadata)
        .map_err(|error| unreadable(resource, &format!("metadata: {error}")))?;
    if let Some(decode) = resource.decode {
        decode(body).map_err(|error| unreadable(resource, &error.to_string()))?;
    }
    match namespace {
        None => {
            metadata_mut(body).remove("namespace");
        }
        Some(namespace) => {
            let given = metadata_text(body, "namespace");
            if !given.is_empty() && given != namespace {
                let message = format!(
                    "the namespace of the provided object does not match the namespace sent on the request ({given:?}, {namespace:?})"
                );
                return Err(Failure::bad_request(message));
            }
            metadata_mut(body).insert("namespace".to_owned(), json!(namespace));
        }
    }
    Ok(())
}

fn unreadable(resource: &Resource, detail: &str) -> Failure {
    let Resource { kind, version, .. } = resource;
    Failure::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {detail}"
    ))
}

/// Takes out of metadata what it does not have, and returns the paths.
pub(crate) fn prune(object: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    let metadata = metadata_mut(object);
    metadata.retain(|name, _| {
        let known = FIELDS.contains(&name.as_str());
        if !known {
            dropped.push(format!("metadata.{name}"));
        }
        known
    });
    let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    metadata.retain(|name, value| !is_empty(value) && name != "managedFields" && name != "selfLink");
    dropped
}

/// What a new object begins with.
pub(crate) fn begin(object: &mut Value) -> Answer<()> {
    let metadata = metadata_mut(object);
    let text = |metadata: &Map<String, Value>, field: &str| {
        metadata
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    if !text(metadata, "resourceVersion").is_empty() {
        return Err(Failure::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    if text(metadata, "name").is_empty() {
        let beginning = text(metadata, "generateName");
        if !beginning.is_empty() {
            metadata.insert("name".to_owned(), json!(generated(&beginning)));
        }
    }
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
    ] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), json!(now()));
    metadata.insert("generation".to_owned(), json!(1));
    Ok(())
}

fn generated(beginning: &str) -> String {
    let longest = GENERATED_LONGEST - GENERATED_LETTERS;
    let cut = beginning
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| *end <= longest)
        .last();
    let random = uuid::Uuid::new_v4().into_bytes();
    let letters = random
        .iter()
        .take(GENERATED_LETTERS)
        .map(|byte| LETTERS[usize::from(*byte) % LETTERS.len()]);
    let letters: String = letters.map(char::from).collect();
    format!("{}{letters}", &beginning[..cut.unwrap_or(0)])
}

/// The time as Kubernetes writes it: whole seconds, UTC.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Checks that a new form of an object is meant for the stored one, and puts back what clients cannot change.
pub(crate) fn carry_over(
    resource: &Resource,
    before: &Object,
    object: &mut Value,
    blind: bool,
) -> Answer<()> {
    let name = before.text("name");
    let (group, plural) = (resource.group.as_str(), resource.plural.as_str());
    let given = metadata_text(object, "name");
    if given != name {
        let message = format!("the name of the object ({given}) does not match the name on the URL ({name})");
        return Err(Failure::bad_request(message));
    }
    let uid = metadata_text(object, "uid");
    if !uid.is_empty() && uid != before.text("uid") {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            before.text("uid")
        );
        return Err(Failure::conflict(group, plural, name, &why));
    }
    let version = metadata_text(object, "resourceVersion");
    if version.is_empty() && !blind {
        let cause = Cause::new(
            "FieldValueInvalid",
            "metadata.resourceVersion",
            "Invalid value: 0x0: must be specified for an update",
        );
        return Err(Failure::invalid(group, &resource.kind, name, vec![cause]));
    }
    if !version.is_empty() && version != before.text("resourceVersion") {
        return Err(stale(resource, name));
    }
    let metadata = metadata_mut(object);
    for field in FIXED {
        match before.metadata(field) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    Ok(())
}

/// 409: somebody else was faster.
pub(crate) fn stale(resource: &Resource, name: &str) -> Failure {
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    Failure::conflict(&resource.group, &resource.plural, name, why)
}

/// Everything in an object's metadata that breaks a rule.
pub(crate) fn validate(resource: &Resource, object: &Value, before: Option<&Object>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let metadata = object.get("metadata").and_then(Value::as_object);
    let name = metadata_text(object, "name");
    if name.is_empty() {
        causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else {
        let is_namespace = resource.kind == "Namespace" && resource.group.is_empty();
        let problems = if is_namespace {
            names::label_problems(name)
        } else {
            names::subdomain_problems(name)
        };
        causes.extend(
            problems
                .iter()
                .map(|problem| Cause::invalid("metadata.name", &json!(name), problem)),
        );
    }
    let Some(metadata) = metadata else {
        return causes;
    };
    check_labels(metadata, &mut causes);
    check_annotations(metadata, &mut causes);
    check_finalizers(metadata, before, &mut causes);
    check_owners(metadata, &mut causes);
    causes
}

fn check_labels(metadata: &Map<String, Value>, causes: &mut Vec<Cause>) {
    for (key, value) in metadata
        .get("labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let bad_key = names::qualified_problems(key);
        causes.extend(
            bad_key
                .iter()
                .map(|problem| Cause::invalid("metadata.labels", &json!(key), problem)),
        );
        let bad_value = names::value_problems(value.as_str().unwrap_or_default());
        causes.extend(
            bad_value
                .iter()
                .map(|problem| Cause::invalid("metadata.labels", value, problem)),
        );
    }
}

fn check_annotations(metadata: &Map<String, Value>, causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for (key, value) in metadata
        .get("annotations")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        let problems = names::qualified_problems(&key.to_lowercase());
        causes.extend(
            problems
                .iter()
                .map(|problem| Cause::invalid("metadata.annotations", &json!(key), problem)),
        );
    }
    if bytes > limits::ANNOTATION_BYTES {
        causes.push(Cause::too_long(
            "metadata.annotations",
            limits::ANNOTATION_BYTES as u64,
        ));
    }
}

fn check_finalizers(metadata: &Map<String, Value>, before: Option<&Object>, causes: &mut Vec<Cause>) {
    let set = |list: Option<&Value>| -> BTreeSet<String> {
        let list = list.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let finalizers = set(metadata.get("finalizers"));
    for finalizer in &finalizers {
        let problems = names::qualified_problems(finalizer);
        let causes_of = problems
            .iter()
            .map(|problem| Cause::invalid("metadata.finalizers", &json!(finalizer), problem));
        causes.extend(causes_of);
    }
    if let Some(before) = before.filter(|before| before.is_terminating()) {
        let known = set(before.metadata("finalizers"));
        let added: Vec<&String> = finalizers.difference(&known).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            causes.push(Cause::forbidden("metadata.finalizers", &detail));
        }
    }
}

fn check_owners(metadata: &Map<String, Value>, causes: &mut Vec<Cause>) {
    let owners = metadata.get("ownerReferences").and_then(Value::as_array);
    for owner in owners.into_iter().flatten() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .is_empty()
            {
                let path = format!("metadata.ownerReferences.{field}");
                causes.push(Cause::invalid(path, &json!(""), "must not be empty"));
            }
        }
    }
}
