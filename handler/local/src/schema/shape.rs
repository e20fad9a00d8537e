//! Brings an object into its schema's shape: unknown fields out, defaults in.

use serde_json::{Map, Value};

use super::{Additional, Schema};

impl Schema {
    /// Drops what the schema does not know and returns the paths of what was dropped.
    /// `apiVersion`, `kind` and `metadata` at the top are not the schema's business.
    pub(crate) fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut dropped = Vec::new();
        if let Value::Object(fields) = object {
            self.prune_fields(fields, "", &["apiVersion", "kind", "metadata"], &mut dropped);
        }
        dropped
    }

    fn prune_value(&self, value: &mut Value, path: &str, dropped: &mut Vec<String>) {
        match value {
            Value::Object(fields) => self.prune_fields(fields, path, &[], dropped),
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    schema.prune_value(item, &format!("{path}[{index}]"), dropped);
                }
            }
            _ => {}
        }
    }

    fn prune_fields(
        &self,
        fields: &mut Map<String, Value>,
        path: &str,
        skipped: &[&str],
        dropped: &mut Vec<String>,
    ) {
        fields.retain(|name, value| {
            let inner = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            if skipped.contains(&name.as_str()) {
                return true;
            }
            match (self.properties.get(name), &self.additional) {
                (Some(schema), _) => schema.prune_value(value, &inner, dropped),
                (None, Additional::Of(schema)) => schema.prune_value(value, &inner, dropped),
                (None, Additional::Any) => {}
                (None, Additional::None) if self.keeps_unknown => {}
                (None, Additional::None) => {
                    dropped.push(inner);
                    return false;
                }
            }
            true
        });
    }

    /// Fills in the schema's defaults, also inside of values that are there. A null where a default exists
    /// and null is not allowed counts as absent.
    pub(crate) fn fill_defaults(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, schema) in &self.properties {
                    schema.fill_field(fields, name);
                }
                if let Additional::Of(schema) = &self.additional {
                    let unnamed = fields
                        .iter_mut()
                        .filter(|(name, _)| !self.properties.contains_key(*name));
                    unnamed.for_each(|(_, inner)| schema.fill_defaults(inner));
                }
            }
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                items.iter_mut().for_each(|item| schema.fill_defaults(item));
            }
            _ => {}
        }
    }

    fn fill_field(&self, fields: &mut Map<String, Value>, name: &str) {
        if let Some(default) = &self.default {
            let absent = fields
                .get(name)
                .is_none_or(|value| value.is_null() && !self.nullable);
            if absent {
                fields.insert(name.to_owned(), default.clone());
            }
        }
        if let Some(value) = fields.get_mut(name) {
            self.fill_defaults(value);
        }
    }
}
