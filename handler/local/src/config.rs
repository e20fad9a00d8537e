//! ConfigMaps and Secrets: what machines bring to their guests as files.
//!
//! A Secret's `stringData` is only a way to write `data`, and never stored, as everywhere. Keys are file names.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};

use crate::builtin::base;
use crate::resource::{Admission, Resource};
use crate::status::Cause;
use crate::table::Column;

/// Longest key of a ConfigMap or a Secret, in bytes.
const MAX_KEY: usize = 253;

/// What both kinds promise.
struct ConfigRules;

impl Admission for ConfigRules {
    fn default(&self, object: &mut Value, _before: Option<&Value>) {
        if object["kind"] != "Secret" {
            return;
        }
        if object["type"].as_str().is_none_or(str::is_empty) {
            object["type"] = json!("Opaque");
        }
        let written = object
            .as_object_mut()
            .and_then(|fields| fields.remove("stringData"));
        let Some(Value::Object(written)) = written else {
            return;
        };
        for (key, text) in written {
            object["data"][key] = json!(STANDARD.encode(text.as_str().unwrap_or_default()));
        }
    }

    fn validate(&self, object: &Value, _before: Option<&Value>) -> Vec<Cause> {
        let keys = |field: &'static str| {
            let entries = object[field].as_object().into_iter().flatten();
            entries.map(move |(key, _)| (field, key))
        };
        let bad = keys("data")
            .chain(keys("binaryData"))
            .filter(|(_, key)| !is_key(key));
        let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        bad.map(|(field, key)| Cause::new("FieldValueInvalid", format!("{field}[{key}]"), why.to_owned()))
            .collect()
    }
}

fn is_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(plain) && !matches!(key, "." | "..")
}

pub(crate) fn config_maps() -> Resource {
    Resource {
        short_names: vec!["cm".to_owned()],
        columns: vec![
            Column::made("Data", "How many keys it has", |object| {
                count(object, &["data", "binaryData"])
            }),
            Column::age(),
        ],
        admission: Some(Arc::new(ConfigRules)),
        ..base::<ConfigMap>("", "configmaps", true)
    }
}

pub(crate) fn secrets() -> Resource {
    Resource {
        columns: vec![
            Column::made("Type", "What it is for", |object| object["type"].clone()),
            Column::made("Data", "How many keys it has", |object| count(object, &["data"])),
            Column::age(),
        ],
        admission: Some(Arc::new(ConfigRules)),
        ..base::<Secret>("", "secrets", true)
    }
}

fn count(object: &Value, fields: &[&str]) -> Value {
    let lengths = fields.iter().filter_map(|field| object[field].as_object());
    json!(lengths.map(serde_json::Map::len).sum::<usize>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_as_text_is_kept_as_data() {
        let mut secret = json!({"kind": "Secret", "data": {"a": "eA=="}, "stringData": {"b": "plain"}});
        ConfigRules.default(&mut secret, None);
        let kept = json!({"kind": "Secret", "type": "Opaque", "data": {"a": "eA==", "b": "cGxhaW4="}});
        assert_eq!(secret, kept);
        let mut map = json!({"kind": "ConfigMap", "data": {"a": "x"}});
        ConfigRules.default(&mut map, None);
        assert_eq!(map, json!({"kind": "ConfigMap", "data": {"a": "x"}}));
    }

    #[test]
    fn a_key_that_is_no_file_name_is_refused() {
        let refused = |key: &str| ConfigRules.validate(&json!({"data": {key: "x"}}), None).len();
        assert_eq!(["a.b_c-d", "UPPER"].map(refused), [0, 0]);
        assert_eq!(["", "..", "a/b", "ä"].map(refused), [1, 1, 1, 1]);
    }
}
