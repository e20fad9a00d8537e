//! The one custom resource of local mode: `kubevirt.io/v1` VirtualMachineInstance, by the rules of `rvm-types`.

use std::sync::Arc;

use rvm_types::VirtualMachineInstance;
use rvm_types::admission;
use serde::Deserialize;
use serde_json::Value;

use crate::resource::{Admission, Resource, ResourceError};
use crate::status::Cause;

/// The resource that the generated CRD defines, with what KubeVirt does beyond a CRD: defaults, and checks of the whole machine.
pub fn virtual_machine_instances() -> Result<Resource, ResourceError> {
    Resource::from_crd(&rvm_types::crd(), Some(Arc::new(VmiRules)))
}

struct VmiRules;

impl Admission for VmiRules {
    /// Only at creation, as in KubeVirt: afterwards nobody wants fields to appear.
    fn default(&self, object: &mut Value, before: Option<&Value>) {
        // What cannot be read is left as it is; the schema or `validate` says why.
        if before.is_none()
            && let Ok(mut vmi) = VirtualMachineInstance::deserialize(&*object)
        {
            admission::default(&mut vmi);
            if let Ok(value) = serde_json::to_value(&vmi) {
                *object = value;
            }
        }
    }

    /// At creation and when the spec changes; a status must get through whatever was allowed in before.
    fn validate(&self, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        if before.is_some_and(|before| before.get("spec") == object.get("spec")) {
            return Vec::new();
        }
        match VirtualMachineInstance::deserialize(object) {
            Ok(vmi) => admission::validate(&vmi).iter().map(cause).collect(),
            Err(error) => vec![Cause::new(
                "FieldValueInvalid",
                "spec",
                format!("Invalid value: {error}"),
            )],
        }
    }
}

fn cause(cause: &admission::Cause) -> Cause {
    // The message names the field for those who read it alone; in a Status the field stands before it anyway.
    let message = cause
        .message
        .strip_prefix(&cause.field)
        .map_or(cause.message.as_str(), str::trim_start);
    Cause::new(cause.reason.as_str(), cause.field.clone(), message)
}
