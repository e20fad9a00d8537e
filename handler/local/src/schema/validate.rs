//! Checks an object against its schema, with kube-apiserver's rules, words and field paths.

use serde_json::{Map, Value, json};

use super::{Additional, ListKind, Schema};
use crate::status::Cause;

impl Schema {
    /// Everything about `object` that breaks the schema. `metadata` has rules of its own, kept elsewhere.
    pub(crate) fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        let Some(fields) = object.as_object() else {
            return vec![Cause::wrong_type(
                "",
                &json!(type_name(object)),
                "the object must be of type object",
            )];
        };
        for name in self.required.iter().filter(|name| !fields.contains_key(*name)) {
            causes.push(Cause::required(name, ""));
        }
        for (name, schema) in self.properties.iter().filter(|(name, _)| *name != "metadata") {
            if let Some(value) = fields.get(name) {
                schema.check(value, name, &mut causes);
            }
        }
        causes
    }

    fn check(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        if value.is_null() && self.nullable {
            return;
        }
        if !self.type_fits(value) {
            let (got, wanted) = (type_name(value), self.wanted_type());
            let detail = format!("{path} in body must be of type {wanted}: {got:?}");
            causes.push(Cause::wrong_type(path, &json!(got), detail));
            return;
        }
        if !self.allowed.is_empty() && !self.allowed.contains(value) {
            let supported: Vec<String> = self.allowed.iter().map(plain).collect();
            causes.push(Cause::unsupported(path, value, &supported));
        }
        match value {
            Value::String(text) => self.check_string(text, path, causes),
            Value::Number(_) => self.check_number(value, path, causes),
            Value::Array(items) => self.check_list(items, path, causes),
            Value::Object(fields) => self.check_object(fields, path, causes),
            Value::Null | Value::Bool(_) => {}
        }
        self.check_combined(value, path, causes);
    }

    fn wanted_type(&self) -> &str {
        if self.int_or_string {
            "integer,string"
        } else {
            self.kind.as_deref().unwrap_or("any")
        }
    }

    fn type_fits(&self, value: &Value) -> bool {
        let integer = |value: &Value| value.is_i64() || value.is_u64() || value.as_f64().is_some_and(whole);
        if self.int_or_string {
            return value.is_string() || integer(value);
        }
        match self.kind.as_deref() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => integer(value),
            Some("number") => value.is_number(),
            // No type: whatever JSON there is, and a null only where nullable (or nothing is said at all).
            _ => !value.is_null() || self.keeps_unknown || self.kind.is_none(),
        }
    }

    fn check_string(&self, text: &str, path: &str, causes: &mut Vec<Cause>) {
        let value = json!(text);
        let length = text.chars().count() as u64;
        if let Some(longest) = self.length.1.filter(|longest| length > *longest) {
            causes.push(Cause::too_long(path, longest));
        }
        if let Some(shortest) = self.length.0.filter(|shortest| length < *shortest) {
            let detail = format!("{path} in body should be at least {shortest} chars long");
            causes.push(Cause::invalid(path, &value, detail));
        }
        if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            let detail = format!("{path} in body should match '{pattern}'");
            causes.push(Cause::invalid(path, &value, detail));
        }
        if self.format.as_deref() == Some("date-time") && text.parse::<jiff::Timestamp>().is_err() {
            let detail = format!("{path} in body must be of type date-time: {text:?}");
            causes.push(Cause::invalid(path, &value, detail));
        }
    }

    fn check_number(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let number = value.as_f64().unwrap_or_default();
        let mut fail =
            |detail: String| causes.push(Cause::invalid(path, value, format!("{path} in body {detail}")));
        match self.minimum {
            Some((bound, true)) if number <= bound => fail(format!("should be greater than {bound}")),
            Some((bound, false)) if number < bound => {
                fail(format!("should be greater than or equal to {bound}"));
            }
            _ => {}
        }
        match self.maximum {
            Some((bound, true)) if number >= bound => fail(format!("should be less than {bound}")),
            Some((bound, false)) if number > bound => {
                fail(format!("should be less than or equal to {bound}"));
            }
            _ => {}
        }
        if let Some(step) = self.multiple_of.filter(|step| !whole(number / step)) {
            fail(format!("should be a multiple of {step}"));
        }
        let integer = value.as_i64();
        let fits = match self.format.as_deref() {
            Some("int32") => value.is_f64() || integer.is_some_and(|integer| i32::try_from(integer).is_ok()),
            Some("int64") => value.is_f64() || integer.is_some(),
            _ => true,
        };
        if !fits {
            let format = self.format.as_deref().unwrap_or_default();
            fail(format!("must be of type {format}: \"{value}\""));
        }
    }

    fn check_list(&self, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
        if let Some(most) = self.entries.1.filter(|most| items.len() as u64 > *most) {
            causes.push(Cause::too_many(path, items.len(), most));
        }
        if let Some(least) = self.entries.0.filter(|least| (items.len() as u64) < *least) {
            let detail = format!("{path} in body should have at least {least} items");
            causes.push(Cause::invalid(path, &json!(items.len()), detail));
        }
        let mut seen = std::collections::HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let inner = format!("{path}[{index}]");
            if let Some(identity) = self
                .identity(item)
                .filter(|identity| !seen.insert(identity.to_string()))
            {
                causes.push(Cause::duplicate(&inner, &identity));
            }
            if let Some(schema) = &self.items {
                schema.check(item, &inner, causes);
            }
        }
    }

    /// What makes an item of this list the same as another one; none in a list where all are welcome.
    fn identity(&self, item: &Value) -> Option<Value> {
        match &self.list {
            ListKind::Atomic => None,
            ListKind::Set => Some(item.clone()),
            ListKind::Map(keys) => {
                let fields = item.as_object()?;
                let part = |key: &String| fields.get(key).map(|value| (key.clone(), value.clone()));
                Some(Value::Object(keys.iter().filter_map(part).collect()))
            }
        }
    }

    fn check_object(&self, fields: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
        for name in self.required.iter().filter(|name| !fields.contains_key(*name)) {
            causes.push(Cause::required(format!("{path}.{name}"), ""));
        }
        if let Some(most) = self.fields.1.filter(|most| fields.len() as u64 > *most) {
            causes.push(Cause::too_many(path, fields.len(), most));
        }
        if let Some(least) = self.fields.0.filter(|least| (fields.len() as u64) < *least) {
            let detail = format!("{path} in body should have at least {least} properties");
            causes.push(Cause::invalid(path, &json!(fields.len()), detail));
        }
        for (name, value) in fields {
            let inner = format!("{path}.{name}");
            match (self.properties.get(name), &self.additional) {
                (Some(schema), _) => schema.check(value, &inner, causes),
                (None, Additional::Of(schema)) => schema.check(value, &inner, causes),
                _ => {}
            }
        }
    }

    fn check_combined(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        for schema in &self.all_of {
            schema.check(value, path, causes);
        }
        let fitting = |list: &[Schema]| list.iter().filter(|schema| schema.fits(value, path)).count();
        let mut fail = |text: &str| causes.push(Cause::invalid(path, value, format!("{path:?} {text}")));
        if !self.any_of.is_empty() && fitting(&self.any_of) == 0 {
            fail("must validate at least one schema (anyOf)");
        }
        if !self.one_of.is_empty() && fitting(&self.one_of) != 1 {
            fail("must validate one and only one schema (oneOf)");
        }
        if self.not.as_ref().is_some_and(|schema| schema.fits(value, path)) {
            fail("must not validate the schema (not)");
        }
    }

    fn fits(&self, value: &Value, path: &str) -> bool {
        let mut causes = Vec::new();
        self.check(value, path, &mut causes);
        causes.is_empty()
    }
}

fn whole(number: f64) -> bool {
    number.fract() == 0.0
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        Schema::compile(&json!({
            "type": "object",
            "required": ["spec"],
            "properties": {
                "spec": {
                    "type": "object",
                    "required": ["domain"],
                    "properties": {
                        "architecture": {"type": "string", "enum": ["riscv64"]},
                        "cores": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 8},
                        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5, "minLength": 1},
                        "running": {"type": "boolean"},
                        "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                        "domain": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                        "policy": {"type": "string", "default": "Restart"},
                        "volumes": {
                            "type": "array", "maxItems": 2, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {"type": "object", "properties": {"name": {"type": "string"}}},
                        },
                    },
                },
            },
        }))
        .unwrap()
    }

    fn texts(spec: &Value) -> Vec<String> {
        let causes = schema().validate(&json!({ "spec": spec }));
        causes
            .into_iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect()
    }

    #[test]
    fn good_object_passes() {
        let spec = json!({"domain": {"any": 1}, "architecture": "riscv64", "cores": 2, "port": "http", "labels": {"a": "b"}});
        assert_eq!(texts(&spec), Vec::<String>::new());
    }

    #[test]
    fn refusals_read_as_kube_apiservers_do() {
        assert_eq!(
            texts(&json!({"domain": {}, "architecture": "amd64"})),
            ["spec.architecture: Unsupported value: \"amd64\": supported values: \"riscv64\""]
        );
        assert_eq!(texts(&json!({})), ["spec.domain: Required value"]);
        assert_eq!(
            texts(&json!({"domain": {}, "cores": 0})),
            ["spec.cores: Invalid value: 0: spec.cores in body should be greater than or equal to 1"]
        );
        assert_eq!(
            texts(&json!({"domain": {}, "running": "yes"})),
            [
                "spec.running: Invalid value: \"string\": spec.running in body must be of type boolean: \"string\""
            ]
        );
        assert_eq!(
            texts(&json!({"domain": {}, "name": "A"})),
            ["spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'"]
        );
        assert_eq!(
            texts(&json!({"domain": {}, "name": "abcdef"})),
            ["spec.name: Too long: may not be more than 5 bytes"]
        );
        assert_eq!(
            texts(&json!({"domain": {}, "volumes": [{"name": "a"}, {"name": "a"}, {"name": "b"}]})),
            [
                "spec.volumes: Too many: 3: must have at most 2 items",
                "spec.volumes[1]: Duplicate value: {\"name\":\"a\"}"
            ]
        );
        assert_eq!(
            texts(&json!({"domain": {}, "labels": {"a": 1}})),
            [
                "spec.labels.a: Invalid value: \"integer\": spec.labels.a in body must be of type string: \"integer\""
            ]
        );
        assert_eq!(
            texts(&json!({"domain": {}, "port": true})),
            [
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\""
            ]
        );
    }

    #[test]
    fn numbers_beyond_their_format_are_refused() {
        assert_eq!(texts(&json!({"domain": {}, "cores": 4_000_000_000_u64})).len(), 2);
        assert_eq!(texts(&json!({"domain": {}, "cores": 1.5})).len(), 1);
    }

    #[test]
    fn unknown_fields_go_and_are_named_unless_kept() {
        let mut object = json!({"kind": "X", "metadata": {"x": 1}, "spec": {"typo": 1, "domain": {"kept": 1}, "volumes": [{"nmae": "a"}]}});
        assert_eq!(schema().prune(&mut object), ["spec.typo", "spec.volumes[0].nmae"]);
        assert_eq!(object["spec"], json!({"domain": {"kept": 1}, "volumes": [{}]}));
    }

    #[test]
    fn defaults_are_filled_in() {
        let mut object = json!({"spec": {"policy": null}});
        schema().fill_defaults(&mut object);
        assert_eq!(object, json!({"spec": {"policy": "Restart"}}));
    }

    #[test]
    fn unsupported_rules_are_refused_when_read() {
        let source = json!({"type": "object", "properties": {"spec": {"x-kubernetes-validations": [{"rule": "true"}]}}});
        let error = Schema::compile(&source).unwrap_err();
        assert_eq!(
            error.to_string(),
            ".spec.x-kubernetes-validations: this schema keyword is not supported"
        );
    }
}
