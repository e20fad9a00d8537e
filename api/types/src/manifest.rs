//! Manifests as people write them: YAML with several documents, or JSON. The one place that calls the YAML parser.

use serde::Serialize;
use serde_json::Value;

/// A manifest file is never larger than this; an object in a cluster's store is smaller still.
pub const MAX_BYTES: usize = 3 << 20;

/// Why a manifest cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is longer than [`MAX_BYTES`].
    #[error("the manifest is larger than {} MiB", MAX_BYTES >> 20)]
    TooLarge,
    /// It is not UTF-8.
    #[error("the manifest is not UTF-8 text")]
    NotText,
    /// It is neither YAML nor JSON; the text says where.
    #[error("the manifest is not valid YAML: {0}")]
    Yaml(String),
    /// One of its documents is not an object.
    #[error("document {0} of the manifest is not an object")]
    NotAnObject(usize),
    /// An object cannot be written as YAML.
    #[error("the object cannot be written as YAML: {0}")]
    Write(String),
}

/// The documents of a manifest, empty ones left out. JSON is YAML, so it needs no door of its own. The items of a
/// `List` stand in its place.
pub fn parse(bytes: &[u8]) -> Result<Vec<Value>, ManifestError> {
    if bytes.len() > MAX_BYTES {
        return Err(ManifestError::TooLarge);
    }
    let text = str::from_utf8(bytes).map_err(|_| ManifestError::NotText)?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| first_line(&error))?;
    let mut objects = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        match document {
            Value::Null => {}
            Value::Object(mut list) if list.get("kind").is_some_and(|kind| kind == "List") => {
                objects.extend(match list.remove("items") {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                });
            }
            Value::Object(_) => objects.push(document),
            _ => return Err(ManifestError::NotAnObject(index + 1)),
        }
    }
    Ok(objects)
}

/// An object as YAML, for people.
pub fn to_yaml(object: &impl Serialize) -> Result<String, ManifestError> {
    serde_saphyr::to_string(object).map_err(|error| ManifestError::Write(error.to_string()))
}

/// The parser draws the place under its message; one line is what our callers print.
fn first_line(error: &serde_saphyr::Error) -> ManifestError {
    let message = error.without_snippet().to_string();
    ManifestError::Yaml(message.lines().next().unwrap_or("unknown error").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_documents_come_in_order_and_empty_ones_are_left_out() {
        let objects = parse(b"---\nkind: A\n---\n# nothing\n---\nkind: B\n").unwrap();
        assert_eq!(
            objects,
            [serde_json::json!({"kind": "A"}), serde_json::json!({"kind": "B"})]
        );
    }

    #[test]
    fn json_is_read_too_and_a_list_is_its_items() {
        let objects = parse(br#"{"kind": "List", "items": [{"kind": "A"}, {"kind": "B"}]}"#).unwrap();
        assert_eq!(objects.len(), 2);
    }

    #[test]
    fn what_is_no_yaml_is_refused_in_one_line_with_its_place() {
        let error = parse(b"a: [1,\nb: }").unwrap_err().to_string();
        assert!(error.starts_with("the manifest is not valid YAML: "), "{error}");
        assert!(error.contains("line"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn a_document_that_is_no_object_is_refused() {
        assert_eq!(
            parse(b"kind: A\n---\njust text\n").unwrap_err().to_string(),
            "document 2 of the manifest is not an object"
        );
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let alias = format!("*a{}, ", level - 1).repeat(10);
            bomb += &format!("a{level}: &a{level} [{}]\n", alias.trim_end_matches(", "));
        }
        assert!(matches!(parse(bomb.as_bytes()), Err(ManifestError::Yaml(_))));
    }
}
