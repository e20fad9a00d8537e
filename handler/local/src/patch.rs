//! The kinds of patch that are taken: merge patch (RFC 7386), JSON patch (RFC 6902), and for built-in kinds strategic merge
//! patch (`patch/strategic.rs`).

pub(crate) mod strategic;

use json_patch::{Patch as JsonPatch, PatchOperation};
use serde_json::{Map, Value};

use crate::limits;
use crate::status::{Answer, Failure};

/// The media types of the patches that are taken; the last one for built-in kinds only.
const ACCEPTED: [&str; 3] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    STRATEGIC,
];
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A patch that was read, not yet applied.
#[derive(Debug)]
pub(crate) enum Patch {
    /// Fields to set, and nulls for those to remove.
    Merge(Value),
    /// Steps, all or none.
    Json(JsonPatch),
    /// The same as `Merge`, but into lists of which it is known how.
    Strategic(Map<String, Value>, strategic::Lists),
}

impl Patch {
    /// Reads a body by its media type. Strategic merge patches of kinds whose lists are not known are refused with 415, which tells
    /// kubectl; so is what is applied to a kind whose fields have no owners.
    pub(crate) fn read(media: &str, body: &[u8], lists: Option<strategic::Lists>) -> Answer<Self> {
        let unreadable =
            |error: serde_json::Error| Failure::bad_request(format!("error decoding patch: {error}"));
        match media {
            "application/merge-patch+json" => {
                let patch: Value = serde_json::from_slice(body).map_err(unreadable)?;
                if !patch.is_object() {
                    return Err(Failure::bad_request(
                        "error decoding patch: a merge patch must be an object",
                    ));
                }
                Ok(Self::Merge(patch))
            }
            "application/json-patch+json" => {
                let patch: JsonPatch = serde_json::from_slice(body).map_err(unreadable)?;
                if patch.0.len() > limits::JSON_PATCH_OPERATIONS {
                    let message = format!(
                        "The allowed maximum operations in a JSON patch is {}, got {}",
                        limits::JSON_PATCH_OPERATIONS,
                        patch.0.len()
                    );
                    return Err(Failure::too_large(message));
                }
                Ok(Self::Json(patch))
            }
            STRATEGIC if lists.is_some() => {
                let patch = serde_json::from_slice(body).map_err(unreadable)?;
                Ok(Self::Strategic(patch, lists.unwrap_or_default()))
            }
            other => {
                let accepted = ACCEPTED.len() - usize::from(lists.is_none());
                Err(Failure::unsupported_media(other, &ACCEPTED[..accepted]))
            }
        }
    }

    /// The object with the patch applied.
    pub(crate) fn apply(&self, object: &Value) -> Answer<Value> {
        let mut patched = object.clone();
        match self {
            Self::Merge(patch) => json_patch::merge(&mut patched, patch),
            Self::Json(patch) => apply_steps(&mut patched, &patch.0)?,
            Self::Strategic(patch, lists) => strategic::apply(&mut patched, patch, lists)?,
        }
        Ok(patched)
    }
}

/// One step at a time, since copies of copies grow without bounds, in size and in depth.
fn apply_steps(object: &mut Value, steps: &[PatchOperation]) -> Answer<()> {
    let mut copied = 0;
    for step in steps {
        let from = match step {
            PatchOperation::Copy(copy) => Some(copy.from.as_str()),
            PatchOperation::Move(moved) => Some(moved.from.as_str()),
            _ => None,
        };
        if let Some(value) = from.and_then(|from| object.pointer(from)) {
            copied += value.to_string().len();
        }
        if copied > limits::JSON_PATCH_COPIED_BYTES {
            return Err(Failure::too_large("the JSON patch copies too much"));
        }
        let moved = from.and_then(|from| object.pointer(from)).map_or(0, depth);
        if step.path().count() + moved > limits::NESTING {
            return Err(Failure::unprocessable("the JSON patch nests values too deep"));
        }
        json_patch::patch_unsafe(object, std::slice::from_ref(step)).map_err(|error| {
            let path = step.path();
            Failure::unprocessable(format!(
                "the patch does not fit the object: {path}: {}",
                error.kind
            ))
        })?;
    }
    Ok(())
}

/// How deep a value is nested; a plain value is 0 deep. It does not recurse, since depth is what it is asked about.
pub(crate) fn depth(value: &Value) -> usize {
    let mut deepest = 0;
    let mut open = vec![(value, 0)];
    while let Some((value, level)) = open.pop() {
        deepest = deepest.max(level);
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, level + 1))),
            Value::Object(fields) => open.extend(fields.values().map(|field| (field, level + 1))),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const MERGE: &str = "application/merge-patch+json";
    const JSON: &str = "application/json-patch+json";

    fn apply(media: &str, patch: &Value, object: &Value) -> Result<Value, u16> {
        let patch = Patch::read(media, patch.to_string().as_bytes(), None)
            .map_err(|failure| failure.code().as_u16())?;
        patch.apply(object).map_err(|failure| failure.code().as_u16())
    }

    #[test]
    fn merge_patch_sets_and_removes() {
        let object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        let patch = json!({"a": {"b": null, "d": 3}, "l": [3]});
        assert_eq!(
            apply(MERGE, &patch, &object),
            Ok(json!({"a": {"c": 2, "d": 3}, "l": [3]}))
        );
        assert_eq!(apply(MERGE, &json!([]), &object), Err(400));
    }

    #[test]
    fn json_patch_test_decides() {
        let object = json!({"phase": "Scheduled"});
        let claim = |phase: &str| json!([{"op": "test", "path": "/phase", "value": phase}, {"op": "replace", "path": "/phase", "value": "Running"}]);
        assert_eq!(
            apply(JSON, &claim("Scheduled"), &object),
            Ok(json!({"phase": "Running"}))
        );
        assert_eq!(apply(JSON, &claim("Pending"), &object), Err(422));
        assert_eq!(
            apply(JSON, &json!([{"op": "remove", "path": "/none"}]), &object),
            Err(422)
        );
        assert_eq!(
            apply(JSON, &json!([{"op": "explode", "path": "/"}]), &object),
            Err(400)
        );
    }

    #[test]
    fn copies_of_copies_are_stopped() {
        let step = |index: usize| json!({"op": "copy", "from": "", "path": format!("/{index}")});
        let bomb = Value::Array((0..64).map(step).collect());
        assert_eq!(apply(JSON, &bomb, &json!({"x": "y".repeat(1000)})), Err(413));
    }

    #[test]
    fn steps_that_nest_without_end_are_stopped() {
        let step = |index: usize| json!({"op": "add", "path": "/a".repeat(index), "value": {}});
        let tower = Value::Array((1..5000).map(step).collect());
        assert_eq!(apply(JSON, &tower, &json!({})), Err(422));
        let swap = [
            json!({"op": "add", "path": "/b", "value": {}}),
            json!({"op": "move", "from": "/a", "path": "/b/a"}),
            json!({"op": "move", "from": "/b", "path": "/a"}),
        ];
        let wrap = Value::Array(swap.iter().cycle().take(3000).cloned().collect());
        assert_eq!(apply(JSON, &wrap, &json!({"a": {}})), Err(422));
    }

    #[test]
    fn a_strategic_merge_of_custom_kinds_is_415_and_so_is_what_is_no_patch() {
        assert_eq!(
            apply("application/apply-patch+yaml", &json!({}), &json!({})),
            Err(415)
        );
        assert_eq!(apply(STRATEGIC, &json!({}), &json!({})), Err(415));
        assert!(Patch::read(STRATEGIC, b"{}", Some(&[])).is_ok());
        assert!(Patch::read(STRATEGIC, b"[]", Some(&[])).is_err());
    }

    proptest! {
        #[test]
        fn patches_never_panic(path in "(/[a-z0-9~-]{0,3}){0,3}", from in "(/[a-z0-9]{0,3}){0,3}", op in 0..5_usize) {
            let name = ["add", "remove", "replace", "move", "copy"][op];
            let patch = json!([{"op": name, "path": path, "from": from, "value": 1}]);
            let _ = apply(JSON, &patch, &json!({"a": [1, {"b": 2}], "c": {"d": null}}));
        }
    }
}
