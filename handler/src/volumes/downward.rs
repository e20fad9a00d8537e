//! Fields of a VMI as the text of a file, in the form that Kubernetes gives them in a pod.

use std::collections::BTreeMap;

use rvm_types::VirtualMachineInstance;
use rvm_types::config::{DownwardApiFile, FieldRef};

use super::iso::File;

/// The files of a downwardAPI volume. A field that the VMI does not have is an empty file.
pub fn files(vmi: &VirtualMachineInstance, fields: &[DownwardApiFile]) -> Vec<File> {
    let made = fields.iter().map(|file| File {
        path: file.path.clone(),
        content: file
            .field_ref
            .as_ref()
            .map(|field| value(vmi, field))
            .unwrap_or_default()
            .into_bytes(),
    });
    made.collect()
}

fn value(vmi: &VirtualMachineInstance, field: &FieldRef) -> String {
    let meta = &vmi.metadata;
    let map = |name: &str| {
        if name == "labels" {
            meta.labels.as_ref()
        } else {
            meta.annotations.as_ref()
        }
    };
    if let Some((name, key)) = field.key() {
        return map(name)
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default();
    }
    match field.field_path.as_str() {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(map("labels")),
        "metadata.annotations" => lines(map("annotations")),
        _ => String::new(),
    }
}

/// `key="value"`, a line each.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_field_has_the_form_that_a_pod_would_see() {
        let vmi: VirtualMachineInstance = serde_json::from_value(json!({
            "metadata": {
                "name": "a", "namespace": "n", "uid": "u",
                "labels": {"app": "web", "tier": "x \"y\""}, "annotations": {"note": "one\ntwo"},
            },
            "spec": {"domain": {"devices": {}}},
        }))
        .unwrap();
        let text = |path: &str| {
            value(
                &vmi,
                &FieldRef {
                    field_path: path.into(),
                    ..FieldRef::default()
                },
            )
        };
        assert_eq!(
            [
                text("metadata.name"),
                text("metadata.namespace"),
                text("metadata.uid")
            ],
            ["a", "n", "u"]
        );
        assert_eq!(text("metadata.labels"), "app=\"web\"\ntier=\"x \\\"y\\\"\"");
        assert_eq!(text("metadata.annotations"), "note=\"one\\ntwo\"");
        assert_eq!(text("metadata.labels['app']"), "web");
        assert_eq!(text("metadata.annotations['none']"), "");
    }
}
