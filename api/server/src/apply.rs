//! What `apply` changes: a pure comparison of the manifest, the manifest applied before, and the object as it is.
//!
//! It is `kubectl apply`'s rule, with its annotation, so both can be used on one object. One thing differs: an
//! element of a list that has all that the manifest says, and more, is not a change. The defaults that were filled
//! into a volume would otherwise be taken out and put in again by every apply.

use kube::core::DynamicObject;
use serde_json::{Map, Value};

/// Where kubectl keeps what was applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manifest with itself in the annotation, as it is created.
pub fn annotated(manifest: &DynamicObject) -> DynamicObject {
    let mut plain = manifest.clone();
    if let Some(annotations) = &mut plain.metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    let text = serde_json::to_string(&plain).unwrap_or_default();
    plain
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(LAST_APPLIED.to_owned(), text + "\n");
    plain
}

/// The merge patch that makes the object be as the manifest says; none where it is so already.
pub fn patch(manifest: &DynamicObject, live: &DynamicObject) -> Option<Value> {
    let last = live
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(LAST_APPLIED));
    let last: Value = last
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let live = serde_json::to_value(live).unwrap_or_default();
    let mut wanted = serde_json::to_value(manifest).unwrap_or_default();
    forget_annotation(&mut wanted);
    say_maps(&mut wanted, &live);
    let mut changes = changes(wanted.as_object()?, last.as_object(), live.as_object()?);
    if changes.is_empty() {
        return None;
    }
    let annotation = annotated(manifest).metadata.annotations?.remove(LAST_APPLIED)?;
    let metadata = changes
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    metadata["annotations"][LAST_APPLIED] = annotation.into();
    Some(Value::Object(changes))
}

/// A manifest that has no labels or annotations any more takes away those that it had, and not everybody's: maps that
/// many write are compared key by key, also where the manifest is silent.
fn say_maps(wanted: &mut Value, live: &Value) {
    for field in ["labels", "annotations"] {
        let is_map = |object: &Value| object["metadata"][field].is_object();
        if is_map(live) && !is_map(wanted) {
            wanted["metadata"][field] = Value::Object(Map::new());
        }
    }
}

fn forget_annotation(object: &mut Value) {
    if let Some(annotations) = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
}

/// What has to be set or taken away (`null`) in an object.
fn changes(
    wanted: &Map<String, Value>,
    last: Option<&Map<String, Value>>,
    live: &Map<String, Value>,
) -> Map<String, Value> {
    let mut changes = Map::new();
    for (field, wanted) in wanted.iter().filter(|(_, wanted)| !wanted.is_null()) {
        match (wanted, live.get(field)) {
            (Value::Object(wanted), Some(Value::Object(live))) => {
                let last = last.and_then(|last| last.get(field)?.as_object());
                let inner = self::changes(wanted, last, live);
                if !inner.is_empty() {
                    changes.insert(field.clone(), Value::Object(inner));
                }
            }
            (wanted, Some(live)) if covers(live, wanted) => {}
            (wanted, _) => {
                changes.insert(field.clone(), wanted.clone());
            }
        }
    }
    let dropped = last.into_iter().flat_map(Map::keys);
    for field in dropped.filter(|field| !wanted.contains_key(*field) && live.contains_key(*field)) {
        changes.insert(field.clone(), Value::Null);
    }
    changes
}

/// Whether the object has all that is wanted, and maybe more.
fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted
            .iter()
            .all(|(field, wanted)| live.get(field).is_some_and(|live| covers(live, wanted))),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| covers(live, wanted))
        }
        _ => live == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(spec: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": { "name": "a" }, "spec": spec,
        }))
        .expect("an object")
    }

    #[test]
    fn what_is_there_just_so_is_not_changed() {
        let manifest = object(&json!({ "a": 1, "b": [{ "c": 2 }] }));
        assert_eq!(patch(&manifest, &annotated(&manifest)), None);
    }

    #[test]
    fn defaults_that_were_filled_in_are_not_a_change() {
        let manifest = object(&json!({ "volumes": [{ "name": "root" }] }));
        let mut live = annotated(&manifest);
        live.data = json!({ "spec": { "volumes": [{ "name": "root", "policy": "Always" }], "more": true } });
        assert_eq!(patch(&manifest, &live), None);
    }

    #[test]
    fn what_differs_is_set_and_what_is_no_longer_said_is_taken_away() {
        let live = annotated(&object(&json!({ "a": 1, "b": 2, "c": { "d": 3, "e": 4 } })));
        let patch = patch(&object(&json!({ "a": 9, "c": { "e": 4 } })), &live).expect("a change");
        assert_eq!(patch["spec"], json!({ "a": 9, "b": null, "c": { "d": null } }));
        let annotation = patch["metadata"]["annotations"][LAST_APPLIED]
            .as_str()
            .expect("the annotation");
        assert_eq!(
            serde_json::from_str::<Value>(annotation).expect("JSON")["spec"]["a"],
            9
        );
    }

    #[test]
    fn what_others_have_set_stays() {
        let mut live = annotated(&object(&json!({ "a": 1 })));
        live.metadata.finalizers = Some(vec!["keep".to_owned()]);
        live.data["status"] = json!({ "phase": "Running" });
        let patch = patch(&object(&json!({ "a": 2 })), &live).expect("a change");
        assert_eq!(patch["status"], Value::Null);
        assert_eq!(patch["metadata"].as_object().expect("metadata").len(), 1);
    }

    /// A manifest with these labels and annotations, each of which may be absent.
    fn marked(labels: &Value, annotations: &Value) -> DynamicObject {
        let mut manifest = object(&json!({ "a": 1 }));
        manifest.metadata.labels = serde_json::from_value(labels.clone()).expect("labels");
        manifest.metadata.annotations = serde_json::from_value(annotations.clone()).expect("annotations");
        manifest
    }

    /// What is left of the labels and annotations of an object, which others have marked too, after an apply.
    fn left(before: &DynamicObject, after: &DynamicObject) -> (Value, Value) {
        let mut live = annotated(before);
        live.metadata
            .labels
            .get_or_insert_default()
            .insert("node".to_owned(), "n".to_owned());
        live.metadata
            .annotations
            .get_or_insert_default()
            .insert("claim".to_owned(), "c".to_owned());
        let mut object = serde_json::to_value(&live).expect("JSON");
        json_patch::merge(&mut object, &patch(after, &live).expect("a change"));
        let mut annotations = object["metadata"]["annotations"].clone();
        annotations
            .as_object_mut()
            .expect("annotations")
            .remove(LAST_APPLIED);
        (object["metadata"]["labels"].clone(), annotations)
    }

    #[test]
    fn labels_and_annotations_that_are_no_longer_said_go_and_others_stay() {
        let before = marked(&json!({ "x": "1", "y": "2" }), &json!({ "p": "1", "q": "2" }));
        let others = (json!({ "node": "n" }), json!({ "claim": "c" }));
        assert_eq!(left(&before, &marked(&json!(null), &json!(null))), others);
        assert_eq!(left(&before, &marked(&json!({}), &json!({}))), others);
        let one_each = marked(&json!({ "x": "1" }), &json!({ "q": "3" }));
        let expected = (
            json!({ "node": "n", "x": "1" }),
            json!({ "claim": "c", "q": "3" }),
        );
        assert_eq!(left(&before, &one_each), expected);
    }

    #[test]
    fn a_shorter_list_is_a_change() {
        let live = annotated(&object(&json!({ "disks": [1, 2] })));
        let patch = patch(&object(&json!({ "disks": [1] })), &live).expect("a change");
        assert_eq!(patch["spec"], json!({ "disks": [1] }));
    }
}
