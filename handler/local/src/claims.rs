//! PersistentVolumeClaims. One is bound from the start: its disk is a file of this machine's, which the handler makes when a
//! VMI first asks for it, and removes when the claim is deleted and no VMI uses it any more.
//!
//! One that names a PersistentVolume (`persistent_volumes.rs`) is pending until the handler has bound it to that. There are no
//! classes or drivers; what a claim asks for that would need them is refused.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use rvm_types::names::finalizers::CLAIM_PROTECTION;
use serde_json::{Value, json};

use crate::builtin::base;
use crate::object::metadata_mut;
use crate::persistent_volumes::{check_modes, check_storage};
use crate::resource::{Admission, Resource};
use crate::status::Cause;
use crate::table::Column;

/// Where a claim says how much it wants.
const STORAGE: &str = "/spec/resources/requests/storage";

/// What a claim promises.
struct ClaimRules;

impl Admission for ClaimRules {
    fn default(&self, object: &mut Value, before: Option<&Value>) {
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            spec.entry("volumeMode").or_insert_with(|| json!("Filesystem"));
        }
        if before.is_some() {
            return;
        }
        let finalizers = metadata_mut(object)
            .entry("finalizers")
            .or_insert_with(|| json!([]));
        if let Some(finalizers) = finalizers.as_array_mut()
            && !finalizers.contains(&json!(CLAIM_PROTECTION))
        {
            finalizers.push(json!(CLAIM_PROTECTION));
        }
        let storage = object.pointer(STORAGE).cloned().unwrap_or_default();
        let modes = object["spec"]["accessModes"].clone();
        if object["spec"]["volumeName"].is_string() {
            object["status"] = json!({"phase": "Pending"});
            return;
        }
        object["status"] = json!({"phase": "Bound", "accessModes": modes, "capacity": {"storage": storage}});
    }

    fn validate(&self, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        let spec = &object["spec"];
        if let Some(before) = before {
            let same = before["spec"] == *spec;
            let why = "spec is immutable after creation";
            return if same {
                Vec::new()
            } else {
                vec![Cause::forbidden("spec", why)]
            };
        }
        let mut causes = Vec::new();
        check_storage(
            object.pointer(STORAGE),
            "spec.resources.requests[storage]",
            &mut causes,
        );
        check_modes(spec, &mut causes);
        let elsewhere = ["selector", "dataSource", "dataSourceRef"];
        let given = elsewhere.iter().filter(|field| !spec[**field].is_null());
        causes.extend(
            given.map(|field| Cause::forbidden(format!("spec.{field}"), "is not supported in local mode")),
        );
        causes
    }
}

pub(crate) fn persistent_volume_claims() -> Resource {
    let phase = |object: &Value| object["status"]["phase"].clone();
    let capacity = |object: &Value| object["status"]["capacity"]["storage"].clone();
    Resource {
        short_names: vec!["pvc".to_owned()],
        has_status: true,
        columns: vec![
            Column::made("Status", "Whether it has its disk", phase),
            Column::made("Volume", "The PersistentVolume that it names", |object| {
                object["spec"]["volumeName"].clone()
            }),
            Column::made("Capacity", "The size of its disk", capacity),
            Column::age(),
        ],
        admission: Some(Arc::new(ClaimRules)),
        ..base::<PersistentVolumeClaim>("", "persistentvolumeclaims", true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Value {
        let mut claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "a"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }});
        ClaimRules.default(&mut claim, None);
        claim
    }

    fn fields(claim: &Value, before: Option<&Value>) -> Vec<String> {
        let causes = ClaimRules.validate(claim, before);
        causes.into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn a_claim_is_bound_at_once_and_protected() {
        let claim = claim();
        assert_eq!(fields(&claim, None), [""; 0]);
        assert_eq!(claim["status"]["phase"], "Bound");
        assert_eq!(claim["status"]["capacity"]["storage"], "1Gi");
        assert_eq!(claim["metadata"]["finalizers"], json!([CLAIM_PROTECTION]));
    }

    #[test]
    fn a_claim_that_names_its_volume_waits_for_it() {
        let mut claim = claim();
        claim["spec"]["volumeName"] = json!("pv");
        ClaimRules.default(&mut claim, None);
        assert_eq!(fields(&claim, None), [""; 0]);
        assert_eq!(claim["status"], json!({"phase": "Pending"}));
    }

    #[test]
    fn what_a_file_cannot_be_is_refused_by_its_field() {
        let mut bad = claim();
        bad["spec"] = json!({
            "accessModes": ["Never"], "volumeMode": "Tape", "selector": {},
            "resources": {"requests": {"storage": "0"}},
        });
        let expected = [
            "spec.resources.requests[storage]",
            "spec.accessModes",
            "spec.volumeMode",
            "spec.selector",
        ];
        assert_eq!(fields(&bad, None), expected);
        bad["spec"] = json!({"volumeMode": "Filesystem"});
        assert_eq!(fields(&bad, None), expected[..2]);
    }

    #[test]
    fn a_claim_does_not_change_and_may_lose_its_protection() {
        let before = claim();
        let mut after = before.clone();
        after["metadata"]["finalizers"] = json!([]);
        ClaimRules.default(&mut after, Some(&before));
        assert_eq!(after["metadata"]["finalizers"], json!([]));
        assert_eq!(fields(&after, Some(&before)), [""; 0]);
        after["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
        assert_eq!(fields(&after, Some(&before)), ["spec"]);
    }
}
