//! PersistentVolumes: folders and block devices of the node, for the claims that name them. The handler binds them, and uses
//! only what lies below the folders that its owner allowed for host disks.
//!
//! What is on one is its owner's and stays, whatever becomes of its claim.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;
use rvm_types::Quantity;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::builtin::base;
use crate::resource::{Admission, Resource};
use crate::status::Cause;
use crate::table::Column;

const ACCESS_MODES: [&str; 4] = [
    "ReadWriteOnce",
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOncePod",
];
const VOLUME_MODES: [&str; 2] = ["Filesystem", "Block"];
const HOST_PATHS: [&str; 3] = ["", "Directory", "BlockDevice"];

/// What a volume's spec may hold; on one node, nodeAffinity changes nothing.
const FIELDS: [&str; 9] = [
    "capacity",
    "accessModes",
    "volumeMode",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "claimRef",
    "nodeAffinity",
    "local",
    "hostPath",
];

/// Checks how much is asked for, or given.
pub(crate) fn check_storage(storage: Option<&Value>, field: &str, causes: &mut Vec<Cause>) {
    let Some(storage) = storage else {
        causes.push(Cause::required(field, ""));
        return;
    };
    let size = Quantity::deserialize(storage).ok().map(|size| size.bytes());
    if !matches!(size, Some(Ok(1..))) {
        causes.push(Cause::invalid(
            field,
            storage,
            "must be a quantity greater than 0",
        ));
    }
}

/// Checks who may use it, and as what.
pub(crate) fn check_modes(spec: &Value, causes: &mut Vec<Cause>) {
    let modes = spec["accessModes"].as_array().cloned().unwrap_or_default();
    if modes.is_empty() {
        causes.push(Cause::required(
            "spec.accessModes",
            "at least 1 access mode is required",
        ));
    }
    for mode in &modes {
        one_of("spec.accessModes", mode, &ACCESS_MODES, causes);
    }
    one_of("spec.volumeMode", &spec["volumeMode"], &VOLUME_MODES, causes);
}

fn one_of(field: &str, value: &Value, known: &[&str], causes: &mut Vec<Cause>) {
    if !known.iter().any(|known| value == known) {
        let known: Vec<String> = known.iter().map(|&known| known.to_owned()).collect();
        causes.push(Cause::unsupported(field, value, &known));
    }
}

struct VolumeRules;

impl Admission for VolumeRules {
    fn default(&self, object: &mut Value, before: Option<&Value>) {
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            spec.entry("volumeMode").or_insert_with(|| json!("Filesystem"));
            spec.entry("persistentVolumeReclaimPolicy")
                .or_insert_with(|| json!("Retain"));
        }
        if before.is_none() {
            object["status"] = json!({"phase": "Available"});
        }
    }

    fn validate(&self, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        let spec = &object["spec"];
        if let Some(before) = before {
            let but_holder = |spec: &Value| {
                let mut spec = spec.clone();
                spec.as_object_mut().map(|spec| spec.remove("claimRef"));
                spec
            };
            let why = "is immutable after creation, but for claimRef";
            let same = but_holder(&before["spec"]) == but_holder(spec);
            return if same {
                Vec::new()
            } else {
                vec![Cause::forbidden("spec", why)]
            };
        }
        let mut causes = Vec::new();
        check_storage(
            object.pointer("/spec/capacity/storage"),
            "spec.capacity[storage]",
            &mut causes,
        );
        check_modes(spec, &mut causes);
        let policy = &spec["persistentVolumeReclaimPolicy"];
        one_of(
            "spec.persistentVolumeReclaimPolicy",
            policy,
            &["Retain"],
            &mut causes,
        );
        for field in spec.as_object().into_iter().flat_map(|spec| spec.keys()) {
            if !FIELDS.contains(&field.as_str()) {
                causes.push(Cause::forbidden(
                    format!("spec.{field}"),
                    "is not supported in local mode",
                ));
            }
        }
        if spec["hostPath"].is_object() == spec["local"].is_object() {
            causes.push(Cause::required(
                "spec.local",
                "exactly one of local and hostPath is required",
            ));
        }
        if let Some(kind) = spec.pointer("/hostPath/type") {
            one_of("spec.hostPath.type", kind, &HOST_PATHS, &mut causes);
        }
        causes
    }
}

pub(crate) fn persistent_volumes() -> Resource {
    let held = |object: &Value| {
        let holder = &object["spec"]["claimRef"];
        let part = |field: &str| holder[field].as_str().unwrap_or_default().to_owned();
        json!(
            holder
                .is_object()
                .then(|| format!("{}/{}", part("namespace"), part("name")))
        )
    };
    Resource {
        short_names: vec!["pv".to_owned()],
        has_status: true,
        columns: vec![
            Column::made("Capacity", "The size of its disk", |object| {
                object["spec"]["capacity"]["storage"].clone()
            }),
            Column::made("Status", "Whether a claim has it", |object| {
                object["status"]["phase"].clone()
            }),
            Column::made("Claim", "Which claim has it", held),
            Column::age(),
        ],
        admission: Some(Arc::new(VolumeRules)),
        ..base::<PersistentVolume>("", "persistentvolumes", false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(spec: &Value) -> Value {
        let mut volume = json!({"kind": "PersistentVolume", "metadata": {"name": "a"}, "spec": spec});
        VolumeRules.default(&mut volume, None);
        volume
    }

    fn fields(volume: &Value, before: Option<&Value>) -> Vec<String> {
        let causes = VolumeRules.validate(volume, before);
        causes.into_iter().map(|cause| cause.field).collect()
    }

    fn local() -> Value {
        json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "local": {"path": "/a"}})
    }

    #[test]
    fn a_volume_is_a_folder_or_a_device_and_stays() {
        let made = volume(&local());
        assert_eq!(fields(&made, None), [""; 0]);
        assert_eq!(made["status"]["phase"], "Available");
        assert_eq!(made["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        let mut bound = made.clone();
        bound["spec"]["claimRef"] = json!({"name": "c"});
        assert_eq!(fields(&bound, Some(&made)), [""; 0]);
        bound["spec"]["local"]["path"] = json!("/b");
        assert_eq!(fields(&bound, Some(&made)), ["spec"]);
    }

    #[test]
    fn what_needs_a_driver_is_refused_by_its_field() {
        let bad = volume(&json!({
            "accessModes": [], "volumeMode": "Tape", "nfs": {}, "hostPath": {"path": "/a", "type": "Socket"},
            "local": {"path": "/a"}, "persistentVolumeReclaimPolicy": "Delete",
        }));
        let expected = [
            "spec.capacity[storage]",
            "spec.accessModes",
            "spec.volumeMode",
            "spec.persistentVolumeReclaimPolicy",
            "spec.nfs",
            "spec.local",
            "spec.hostPath.type",
        ];
        assert_eq!(fields(&bad, None), expected);
    }
}
