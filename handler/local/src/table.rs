//! Lists the way `kubectl get` prints them: the server makes the columns and the cells.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::jsonpath::JsonPath;
use crate::resource::Resource;

/// One column after the name.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    /// 0 is always shown, more than 0 with `-o wide` only.
    pub(crate) priority: i32,
    pub(crate) cell: Cell,
}

/// Where a column's cells come from.
#[derive(Debug)]
pub(crate) enum Cell {
    /// A value in the object.
    Path(JsonPath),
    /// Worked out from the object.
    Made(fn(&Value) -> Value),
}

/// How much of each object goes along with its row (`includeObject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Column {
    pub(crate) fn made(name: &str, description: &str, cell: fn(&Value) -> Value) -> Self {
        Self {
            name: name.to_owned(),
            kind: "string".to_owned(),
            format: String::new(),
            description: description.to_owned(),
            priority: 0,
            cell: Cell::Made(cell),
        }
    }

    /// How long the object has been there.
    pub(crate) fn age() -> Self {
        let description =
            "CreationTimestamp is a timestamp representing the server time when this object was created.";
        Self {
            kind: "date".to_owned(),
            ..Self::made("Age", description, age)
        }
    }

    /// The same column, shown with `-o wide` only.
    pub(crate) fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": self.format,
            "description": self.description, "priority": self.priority,
        })
    }

    fn value(&self, object: &Value) -> Value {
        let path = match &self.cell {
            Cell::Made(make) => return make(object),
            Cell::Path(path) => path,
        };
        let Some(value) = path.find(object) else {
            return Value::Null;
        };
        match (self.kind.as_str(), value) {
            ("date", Value::String(text)) => Value::from(human_since(text)),
            ("string", Value::String(_)) => value.clone(),
            ("string", other) => Value::from(other.to_string()),
            ("integer" | "number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
            _ => Value::Null,
        }
    }
}

/// A Table of these stored objects. A watch names the columns in its first Table only.
pub(crate) fn table<'a>(
    resource: &Resource,
    objects: impl Iterator<Item = &'a Value>,
    list_metadata: &Value,
    include: Include,
    headed: bool,
) -> Value {
    let rows: Vec<Value> = objects.map(|object| row(resource, object, include)).collect();
    let definitions = if headed {
        definitions(resource)
    } else {
        Value::Null
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

fn definitions(resource: &Resource) -> Value {
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace.",
    });
    let others = resource.columns.iter().map(Column::definition);
    std::iter::once(name).chain(others).collect()
}

fn row(resource: &Resource, object: &Value, include: Include) -> Value {
    let name = object.pointer("/metadata/name").cloned().unwrap_or_default();
    let cells: Vec<Value> = std::iter::once(name)
        .chain(resource.columns.iter().map(|column| column.value(object)))
        .collect();
    match include {
        Include::Nothing => json!({ "cells": cells }),
        Include::Metadata => json!({ "cells": cells, "object": metadata_only(object) }),
        Include::Object => json!({ "cells": cells, "object": resource.show(object) }),
    }
}

/// An object's metadata alone, in the form that stands for any kind of object.
pub(crate) fn metadata_only(object: &Value) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

fn age(object: &Value) -> Value {
    let created = object
        .pointer("/metadata/creationTimestamp")
        .and_then(Value::as_str);
    Value::from(created.map_or_else(|| "<unknown>".to_owned(), human_since))
}

/// How long ago a time was, as kubectl writes it.
pub(crate) fn human_since(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => human_duration(Timestamp::now().as_second() - time.as_second()),
        Err(_) => "<invalid>".to_owned(),
    }
}

/// `5s`, `3m20s`, `47m`, `5h3m`, `3d4h`, `2y30d`: fine where it is young, coarse where it is old.
fn human_duration(seconds: i64) -> String {
    let pair = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => pair(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        let shown = [
            -5, -1, 0, 119, 120, 200, 600, 10_799, 10_800, 12_000, 28_800, 172_800, 180_000, 700_000,
            63_072_000,
        ]
        .map(human_duration);
        let wanted = [
            "<invalid>",
            "0s",
            "0s",
            "119s",
            "2m",
            "3m20s",
            "10m",
            "179m",
            "3h",
            "3h20m",
            "8h",
            "2d",
            "2d2h",
            "8d",
            "2y",
        ];
        assert_eq!(shown, wanted);
        assert_eq!(human_since("yesterday"), "<invalid>");
    }
}
