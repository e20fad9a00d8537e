//! One object as the store keeps it: JSON, with its place (`Key`) and its revision beside it.

use std::fmt;
use std::time::Instant;

use serde_json::{Map, Value, json};

/// Where an object lies: `group/resource/namespace/name`, `core` for the core group, and no namespace for what has none.
///
/// Sorting by key is what lists are sorted by, and the key is the object's key in the store's file as well.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(String);

impl Key {
    pub(crate) fn new(kind: &Prefix, namespace: Option<&str>, name: &str) -> Self {
        match namespace {
            Some(namespace) => Self(format!("{}{namespace}/{name}", kind.0)),
            None => Self(format!("{}{name}", kind.0)),
        }
    }

    pub(crate) fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The beginning that the keys of one resource, or of one resource in one namespace, share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix(String);

impl Prefix {
    pub(crate) fn of(group: &str, resource: &str) -> Self {
        let group = if group.is_empty() { "core" } else { group };
        Self(format!("{group}/{resource}/"))
    }

    pub(crate) fn within(&self, namespace: Option<&str>) -> Self {
        namespace.map_or_else(
            || self.clone(),
            |namespace| Self(format!("{}{namespace}/", self.0)),
        )
    }

    pub(crate) fn covers(&self, key: &Key) -> bool {
        key.0.starts_with(&self.0)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An object, never changed once it is stored.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) key: Key,
    pub(crate) value: Value,
    pub(crate) revision: u64,
    /// Bytes of its JSON.
    pub(crate) size: usize,
    /// When it was written (or read back from the file): what the age of an event is counted from.
    pub(crate) written: Instant,
}

impl Object {
    /// An object as of `revision`, which is noted in its metadata.
    pub(crate) fn new(key: Key, mut value: Value, revision: u64) -> Self {
        metadata_mut(&mut value).insert("resourceVersion".to_owned(), json!(revision.to_string()));
        let size = value.to_string().len();
        Self {
            key,
            value,
            revision,
            size,
            written: Instant::now(),
        }
    }

    pub(crate) fn metadata(&self, field: &str) -> Option<&Value> {
        self.value.get("metadata")?.get(field)
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.metadata(field).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn has_finalizers(&self) -> bool {
        has_finalizers(&self.value)
    }

    pub(crate) fn is_terminating(&self) -> bool {
        self.metadata("deletionTimestamp")
            .is_some_and(|time| !time.is_null())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether something still has to be done before the object may go.
pub(crate) fn has_finalizers(value: &Value) -> bool {
    value
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty())
}

/// The metadata of a value; made where it is missing or no map.
pub(crate) fn metadata_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    let metadata = &mut value["metadata"];
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut().expect("made a map just above")
}

/// A text in a value's metadata, empty where there is none.
pub(crate) fn metadata_text<'a>(value: &'a Value, field: &str) -> &'a str {
    value
        .get("metadata")
        .and_then(|metadata| metadata.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_namespace_share_its_prefix() {
        let vmis = Prefix::of("kubevirt.io", "virtualmachineinstances");
        let key = Key::new(&vmis, Some("default"), "a");
        assert_eq!(key.to_string(), "kubevirt.io/virtualmachineinstances/default/a");
        assert!(vmis.within(Some("default")).covers(&key));
        assert!(!vmis.within(Some("def")).covers(&key));
        assert_eq!(
            Key::new(&Prefix::of("", "nodes"), None, "n1").to_string(),
            "core/nodes/n1"
        );
    }
}
