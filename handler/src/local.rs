//! Local mode's only kind of its own, with the rules of its objects: what admission webhooks do in a cluster.

use std::sync::Arc;

use jiff::Timestamp;
use rvm_local::{Admission, Resource, ResourceError};
use rvm_types::{Phase, VirtualMachineInstance, admission};
use serde_json::Value;

use crate::status::Edit;

/// The kind `VirtualMachineInstance`, with its defaults and refusals.
///
/// # Errors
/// The embedded API does not take the CRD.
pub fn vmi_resource() -> Result<Resource, ResourceError> {
    Resource::from_crd(&rvm_types::crd(), Some(Arc::new(VmiRules)))
}

struct VmiRules;

impl Admission for VmiRules {
    fn default(&self, object: &mut Value, before: Option<&Value>) {
        if before.is_some() {
            return;
        }
        // What is no VMI is refused by the schema, which is asked next.
        let Ok(mut vmi) = serde_json::from_value::<VirtualMachineInstance>(object.clone()) else {
            return;
        };
        admission::default(&mut vmi);
        // A status is ours to write: what its author made up does not count.
        vmi.status = None;
        let mut edit = Edit::of(&vmi);
        edit.enter(Phase::Pending, Timestamp::now());
        vmi.status = Some(edit.status().clone());
        if let Ok(with_defaults) = serde_json::to_value(vmi) {
            *object = with_defaults;
        }
    }

    fn validate(&self, object: &Value, before: Option<&Value>) -> Vec<rvm_local::Cause> {
        if let Some(before) = before {
            let same = before.get("spec") == object.get("spec");
            let why = "a machine cannot be changed while it exists; delete it and create it anew";
            return if same {
                vec![]
            } else {
                vec![rvm_local::Cause::forbidden("spec", why)]
            };
        }
        let Ok(vmi) = serde_json::from_value::<VirtualMachineInstance>(object.clone()) else {
            return vec![];
        };
        admission::validate(&vmi).into_iter().map(cause).collect()
    }
}

fn cause(cause: admission::Cause) -> rvm_local::Cause {
    // The embedded API puts the path before the message, as kube-apiserver does; ours begins with it.
    let message = cause
        .message
        .strip_prefix(&cause.field)
        .unwrap_or(&cause.message)
        .trim_start();
    rvm_local::Cause::new(cause.reason.as_str(), cause.field, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn vmi() -> Value {
        json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "a", "annotations": {"rvm/root-filesystem": "root"}},
            "spec": {
                "domain": {"devices": {}, "memory": {"guest": "128Mi"}},
                "volumes": [{"name": "root", "containerDisk": {"image": "alpine:3.23"}}],
            },
            "status": {"phase": "Running", "nodeName": "made-up"},
        })
    }

    #[test]
    fn a_new_vmi_is_pending_whatever_its_author_says() {
        let mut object = vmi();
        VmiRules.default(&mut object, None);
        assert_eq!(object["status"]["phase"], "Pending");
        assert_eq!(object["status"].get("nodeName"), None);
        assert_eq!(object["spec"]["architecture"], "riscv64");
        assert_eq!(VmiRules.validate(&object, None), []);
    }

    #[test]
    fn a_refusal_names_the_field_once() {
        let mut object = vmi();
        object["spec"]["architecture"] = json!("amd64");
        let causes = VmiRules.validate(&object, None);
        assert_eq!(causes[0].field, "spec.architecture");
        assert!(
            !causes[0].message.contains("spec.architecture"),
            "{}",
            causes[0].message
        );
    }

    #[test]
    fn a_spec_stays_as_it_is_and_a_status_does_not() {
        let (before, mut after) = (vmi(), vmi());
        after["status"]["phase"] = json!("Failed");
        assert_eq!(VmiRules.validate(&after, Some(&before)), []);
        after["spec"]["domain"]["memory"]["guest"] = json!("1Gi");
        assert_eq!(VmiRules.validate(&after, Some(&before))[0].field, "spec");
    }
}
