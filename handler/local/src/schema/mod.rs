//! A CRD's OpenAPI schema, made ready to be used on objects, as kube-apiserver uses it:
//! fields that it does not know are dropped (`shape`), defaults are filled in (`shape`), and what is left is checked (`validate`).
//!
//! Rules that are not understood here (CEL, `$ref`) are refused when the schema is read, not skipped when an object comes:
//! local mode must never take what a cluster would refuse.

mod shape;
mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

/// Deepest nesting of a schema.
const DEPTH: usize = 64;

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A part of OpenAPI that is not supported.
    #[error("{0}: this schema keyword is not supported")]
    Unsupported(String),
    /// Nested too deep.
    #[error("{0}: nested deeper than {DEPTH} levels")]
    TooDeep(String),
    /// A pattern that is no regular expression.
    #[error("{path}: the pattern is no regular expression")]
    Pattern {
        /// Where it stands.
        path: String,
        /// What the parser says.
        #[source]
        source: Box<regex::Error>,
    },
}

/// How the items of a list are told apart.
#[derive(Debug, Default)]
pub(crate) enum ListKind {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// What fields besides the named ones an object may have.
#[derive(Debug, Default)]
enum Additional {
    #[default]
    None,
    Any,
    Of(Box<Schema>),
}

/// One node of a schema.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    kind: Option<String>,
    format: Option<String>,
    nullable: bool,
    int_or_string: bool,
    keeps_unknown: bool,
    properties: BTreeMap<String, Schema>,
    additional: Additional,
    items: Option<Box<Schema>>,
    list: ListKind,
    /// An object that is changed as a whole.
    whole: bool,
    required: Vec<String>,
    allowed: Vec<Value>,
    default: Option<Value>,
    minimum: Option<(f64, bool)>,
    maximum: Option<(f64, bool)>,
    multiple_of: Option<f64>,
    length: (Option<u64>, Option<u64>),
    entries: (Option<u64>, Option<u64>),
    fields: (Option<u64>, Option<u64>),
    pattern: Option<Regex>,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
}

impl Schema {
    /// Makes a schema ready, or says which part of it is not supported.
    pub(crate) fn compile(source: &Value) -> Result<Self, SchemaError> {
        compile(source, "", 0)
    }

    /// What it says of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        match (self.properties.get(name), &self.additional) {
            (Some(schema), _) => Some(schema),
            (None, Additional::Of(schema)) => Some(schema),
            (None, Additional::Any | Additional::None) => None,
        }
    }

    /// What it says of the items of a list.
    pub(crate) fn item(&self) -> Option<&Self> {
        self.items.as_deref()
    }

    /// How the items of a list are told apart.
    pub(crate) fn list(&self) -> &ListKind {
        &self.list
    }

    /// Whether an object is changed as a whole.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }
}

fn compile(source: &Value, path: &str, depth: usize) -> Result<Schema, SchemaError> {
    if depth > DEPTH {
        return Err(SchemaError::TooDeep(path.to_owned()));
    }
    refuse_unsupported(source, path)?;
    let flag = |key: &str| source.get(key).and_then(Value::as_bool).unwrap_or(false);
    let text = |key: &str| source.get(key).and_then(Value::as_str).map(str::to_owned);
    let count = |key: &str| source.get(key).and_then(Value::as_u64);
    let number = |key: &str| source.get(key).and_then(Value::as_f64);
    let list = |key: &str| {
        source
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let several = |key: &str| -> Result<Vec<Schema>, SchemaError> {
        list(key)
            .iter()
            .map(|inner| compile(inner, path, depth + 1))
            .collect()
    };
    let single = |key: &str, path: &str| -> Result<Option<Box<Schema>>, SchemaError> {
        source
            .get(key)
            .map(|inner| compile(inner, path, depth + 1).map(Box::new))
            .transpose()
    };
    Ok(Schema {
        kind: text("type"),
        format: text("format"),
        nullable: flag("nullable"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        keeps_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        properties: properties(source, path, depth)?,
        additional: additional(source, path, depth)?,
        items: single("items", &format!("{path}[]"))?,
        list: list_kind(source),
        whole: text("x-kubernetes-map-type").as_deref() == Some("atomic"),
        required: strings(&list("required")),
        allowed: list("enum"),
        default: source.get("default").cloned(),
        minimum: number("minimum").map(|bound| (bound, flag("exclusiveMinimum"))),
        maximum: number("maximum").map(|bound| (bound, flag("exclusiveMaximum"))),
        multiple_of: number("multipleOf"),
        length: (count("minLength"), count("maxLength")),
        entries: (count("minItems"), count("maxItems")),
        fields: (count("minProperties"), count("maxProperties")),
        pattern: pattern(source, path)?,
        all_of: several("allOf")?,
        any_of: several("anyOf")?,
        one_of: several("oneOf")?,
        not: single("not", path)?,
    })
}

fn refuse_unsupported(source: &Value, path: &str) -> Result<(), SchemaError> {
    let unsupported = [
        "$ref",
        "x-kubernetes-validations",
        "x-kubernetes-embedded-resource",
        "patternProperties",
    ];
    match unsupported.iter().find(|key| {
        source
            .get(**key)
            .is_some_and(|value| *value != Value::Bool(false))
    }) {
        Some(key) => Err(SchemaError::Unsupported(format!("{path}.{key}"))),
        None => Ok(()),
    }
}

fn properties(source: &Value, path: &str, depth: usize) -> Result<BTreeMap<String, Schema>, SchemaError> {
    let Some(map) = source.get("properties").and_then(Value::as_object) else {
        return Ok(BTreeMap::new());
    };
    let one = |(name, inner): (&String, &Value)| {
        Ok((
            name.clone(),
            compile(inner, &format!("{path}.{name}"), depth + 1)?,
        ))
    };
    map.iter().map(one).collect()
}

fn additional(source: &Value, path: &str, depth: usize) -> Result<Additional, SchemaError> {
    match source.get("additionalProperties") {
        None | Some(Value::Bool(false)) => Ok(Additional::None),
        Some(Value::Bool(true)) => Ok(Additional::Any),
        Some(inner) => Ok(Additional::Of(Box::new(compile(
            inner,
            &format!("{path}.*"),
            depth + 1,
        )?))),
    }
}

fn pattern(source: &Value, path: &str) -> Result<Option<Regex>, SchemaError> {
    let Some(text) = source.get("pattern").and_then(Value::as_str) else {
        return Ok(None);
    };
    let failed = |source| SchemaError::Pattern {
        path: path.to_owned(),
        source: Box::new(source),
    };
    Regex::new(text).map(Some).map_err(failed)
}

fn list_kind(source: &Value) -> ListKind {
    match source.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = source.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            ListKind::Map(strings(keys.map_or(&[], Vec::as_slice)))
        }
        _ => ListKind::Atomic,
    }
}

fn strings(list: &[Value]) -> Vec<String> {
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
