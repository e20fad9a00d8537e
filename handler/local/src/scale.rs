//! The scale subresource of a custom kind: how many of something an object asks for, as `autoscaling/v1` shows it to everybody who
//! scales things and knows nothing of the kind.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceSubresourceScale;
use serde_json::{Value, json};

use crate::object::{metadata_mut, metadata_text};
use crate::status::{Answer, Cause, Failure};

const GROUP: &str = "autoscaling";
const KIND: &str = "Scale";

/// Where an object of a kind has its numbers.
#[derive(Debug)]
pub(crate) struct Scale {
    wanted: String,
    observed: String,
    selector: Option<String>,
}

impl Scale {
    /// As a CRD says it; the path that is not one where it is none.
    pub(crate) fn of(source: &CustomResourceSubresourceScale) -> Result<Self, String> {
        Ok(Self {
            wanted: pointer(&source.spec_replicas_path)?,
            observed: pointer(&source.status_replicas_path)?,
            selector: source.label_selector_path.as_deref().map(pointer).transpose()?,
        })
    }

    /// An object as a Scale.
    pub(crate) fn show(&self, object: &Value) -> Answer<Value> {
        let number = |path: &str| object.pointer(path).and_then(Value::as_i64);
        let wanted = number(&self.wanted).ok_or_else(|| {
            Failure::internal(format!(
                "the spec replicas field {:?} does not exist",
                dotted(&self.wanted)
            ))
        })?;
        let mut metadata = json!({});
        for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if let Some(value) = object.pointer(&format!("/metadata/{field}")) {
                metadata[field] = value.clone();
            }
        }
        let mut status = json!({"replicas": number(&self.observed).unwrap_or_default()});
        let selector = self
            .selector
            .as_ref()
            .and_then(|path| object.pointer(path)?.as_str());
        if let Some(selector) = selector {
            status["selector"] = json!(selector);
        }
        Ok(json!({
            "kind": KIND, "apiVersion": format!("{GROUP}/v1"), "metadata": metadata,
            "spec": {"replicas": wanted}, "status": status,
        }))
    }

    /// An object that asks for as many as a Scale does, if it is still the one that the Scale was made of.
    pub(crate) fn store(&self, object: &Value, scale: &Value) -> Answer<Value> {
        let name = metadata_text(object, "name");
        let given = metadata_text(scale, "name");
        if !given.is_empty() && given != name {
            let message =
                format!("the name of the object ({given}) does not match the name on the URL ({name})");
            return Err(Failure::bad_request(message));
        }
        // A Scale without a number asks for none, as everywhere.
        let wanted = scale.pointer("/spec/replicas").cloned().unwrap_or(json!(0));
        let number = wanted.as_i64().and_then(|number| i32::try_from(number).ok());
        let Some(number) = number.filter(|number| *number >= 0) else {
            let cause = Cause::invalid("spec.replicas", &wanted, "should be a non-negative integer");
            return Err(Failure::invalid(GROUP, KIND, name, vec![cause]));
        };
        let mut scaled = object.clone();
        if let Some((parent, field)) = self.wanted.rsplit_once('/')
            && let Some(Value::Object(fields)) = scaled.pointer_mut(parent)
        {
            fields.insert(field.to_owned(), json!(number));
        }
        for field in ["uid", "resourceVersion"] {
            let told = metadata_text(scale, field);
            if !told.is_empty() {
                metadata_mut(&mut scaled).insert(field.to_owned(), json!(told));
            }
        }
        Ok(scaled)
    }
}

/// `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> Result<String, String> {
    let plain = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let names = path.strip_prefix('.').filter(|names| names.split('.').all(plain));
    names
        .map(|names| format!("/{}", names.replace('.', "/")))
        .ok_or_else(|| path.to_owned())
}

fn dotted(pointer: &str) -> String {
    pointer.replace('/', ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale() -> Scale {
        let source = json!({
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.labelSelector",
        });
        Scale::of(&serde_json::from_value(source).unwrap()).unwrap()
    }

    fn object() -> Value {
        json!({
            "metadata": {"name": "a", "resourceVersion": "5", "labels": {"x": "y"}},
            "spec": {"replicas": 3, "paused": true}, "status": {"replicas": 2, "labelSelector": "app=web"},
        })
    }

    #[test]
    fn a_scale_shows_the_numbers_and_the_selector() {
        let shown = scale().show(&object()).unwrap();
        assert_eq!(shown["metadata"], json!({"name": "a", "resourceVersion": "5"}));
        assert_eq!(shown["spec"], json!({"replicas": 3}));
        assert_eq!(shown["status"], json!({"replicas": 2, "selector": "app=web"}));
        let code = |shown: Answer<Value>| shown.map_err(|failure| failure.code().as_u16());
        assert_eq!(code(scale().show(&json!({"spec": {}}))), Err(500));
    }

    #[test]
    fn a_scale_changes_the_number_alone() {
        let wanted = json!({"metadata": {"resourceVersion": "4"}, "spec": {"replicas": 7}});
        let scaled = scale().store(&object(), &wanted).unwrap();
        assert_eq!(scaled["spec"], json!({"replicas": 7, "paused": true}));
        assert_eq!(scaled["metadata"]["resourceVersion"], "4");
        for wrong in [json!(-1), json!("3"), json!(1.5), json!(1_i64 << 40)] {
            let refused = scale().store(&object(), &json!({"spec": {"replicas": wrong}}));
            assert_eq!(refused.map_err(|failure| failure.code().as_u16()), Err(422));
        }
    }

    #[test]
    fn a_path_of_another_form_is_none() {
        assert_eq!(pointer(".spec.replicas"), Ok("/spec/replicas".to_owned()));
        for wrong in ["spec.replicas", ".spec['x']", ".", ".a..b"] {
            assert_eq!(pointer(wrong), Err(wrong.to_owned()));
        }
    }
}
