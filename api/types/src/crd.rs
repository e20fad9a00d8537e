//! The CustomResourceDefinitions, generated from the Rust types and made structural schemas.
//!
//! What kube-derive generates is nearly it. Three things are changed: the printer columns are KubeVirt's; a VMI has
//! no status subresource, because KubeVirt's has none and its clients write status with the object (all others have one); and the
//! schema is brought to what kube-apiserver takes without a warning (see `structural`).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionVersion,
    CustomResourceSubresourceScale, JSONSchemaProps,
};
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::kubevirt::KubeVirt;
use crate::names::{ARCHITECTURE, GROUP};
use crate::replica_set::{DEFAULT_REPLICAS, VirtualMachineInstanceReplicaSet};
use crate::vm::VirtualMachine;
use crate::vmi::VirtualMachineInstance;

/// The version beside the one that is stored.
const OLDER_VERSION: &str = "v1alpha3";
/// Formats that kube-apiserver knows; it warns of any other.
const KNOWN_FORMATS: [&str; 3] = ["date-time", "int32", "int64"];
/// Fields in which an explicit `null` is as good as none, since Go's clients write it so.
const NULLABLE: [&str; 4] = [
    "lastProbeTime",
    "lastTransitionTime",
    "phaseTransitionTimestamp",
    "retryAfterTimestamp",
];
/// A name, a type, the path it reads, and whether only `-o wide` shows it.
type Column = (&'static str, &'static str, &'static str, bool);
/// What `kubectl get vmi` prints besides the name.
const INSTANCE_COLUMNS: [Column; 7] = [
    ("Age", "date", ".metadata.creationTimestamp", false),
    ("Phase", "string", ".status.phase", false),
    ("IP", "string", ".status.interfaces[0].ipAddress", false),
    ("NodeName", "string", ".status.nodeName", false),
    (
        "Ready",
        "string",
        ".status.conditions[?(@.type=='Ready')].status",
        false,
    ),
    (
        "Live-Migratable",
        "string",
        ".status.conditions[?(@.type=='LiveMigratable')].status",
        true,
    ),
    (
        "Paused",
        "string",
        ".status.conditions[?(@.type=='Paused')].status",
        true,
    ),
];

/// What `kubectl get vm` prints besides the name.
const MACHINE_COLUMNS: [Column; 3] = [
    ("Age", "date", ".metadata.creationTimestamp", false),
    ("Status", "string", ".status.printableStatus", false),
    (
        "Ready",
        "string",
        ".status.conditions[?(@.type=='Ready')].status",
        false,
    ),
];

/// What `kubectl get vmirs` prints besides the name.
const SET_COLUMNS: [Column; 4] = [
    ("Desired", "integer", ".spec.replicas", false),
    ("Current", "integer", ".status.replicas", false),
    ("Ready", "integer", ".status.readyReplicas", false),
    ("Age", "date", ".metadata.creationTimestamp", false),
];

/// What `kubectl get kubevirt` prints besides the name.
const KUBEVIRT_COLUMNS: [Column; 2] = [
    ("Age", "date", ".metadata.creationTimestamp", false),
    ("Phase", "string", ".status.phase", false),
];

/// The definition of `virtualmachineinstances.kubevirt.io`.
pub fn virtual_machine_instances() -> CustomResourceDefinition {
    let mut crd = VirtualMachineInstance::crd();
    for version in &mut crd.spec.versions {
        version.subresources = None;
    }
    finish(crd, &INSTANCE_COLUMNS, |schema| {
        schema["properties"]["spec"]["properties"]["architecture"]["enum"] = json!([ARCHITECTURE]);
    })
}

/// The definition of `virtualmachines.kubevirt.io`.
pub fn virtual_machines() -> CustomResourceDefinition {
    finish(VirtualMachine::crd(), &MACHINE_COLUMNS, |schema| {
        let template = &mut schema["properties"]["spec"]["properties"]["template"];
        template["properties"]["spec"]["properties"]["architecture"]["enum"] = json!([ARCHITECTURE]);
    })
}

/// The definition of `virtualmachineinstancereplicasets.kubevirt.io`.
pub fn replica_sets() -> CustomResourceDefinition {
    let mut crd = VirtualMachineInstanceReplicaSet::crd();
    for version in &mut crd.spec.versions {
        let subresources = version.subresources.get_or_insert_default();
        subresources.scale = Some(CustomResourceSubresourceScale {
            spec_replicas_path: ".spec.replicas".to_owned(),
            status_replicas_path: ".status.replicas".to_owned(),
            label_selector_path: Some(".status.labelSelector".to_owned()),
        });
    }
    finish(crd, &SET_COLUMNS, |schema| {
        let spec = &mut schema["properties"]["spec"]["properties"];
        spec["template"]["properties"]["spec"]["properties"]["architecture"]["enum"] = json!([ARCHITECTURE]);
        // Where nothing is written, the scale subresource would have nothing to show.
        spec["replicas"]["default"] = json!(DEFAULT_REPLICAS);
        spec["replicas"]["minimum"] = json!(0);
    })
}

/// The definition of `kubevirts.kubevirt.io`.
pub fn kubevirts() -> CustomResourceDefinition {
    finish(KubeVirt::crd(), &KUBEVIRT_COLUMNS, |_| {})
}

/// A generated definition with its printer columns, and its schema made structural and then narrowed.
fn finish(
    mut crd: CustomResourceDefinition,
    columns: &[Column],
    narrow: fn(&mut Value),
) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        version.additional_printer_columns = Some(columns.iter().map(column).collect());
        if let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.take())
        {
            let mut schema = serde_json::to_value(schema).expect("a schema is plain data");
            structural(None, &mut schema);
            narrow(&mut schema);
            schema["required"] = json!(["spec"]);
            let schema: JSONSchemaProps =
                serde_json::from_value(schema).expect("only known keywords were set");
            version
                .schema
                .as_mut()
                .expect("it was there a moment ago")
                .open_api_v3_schema = Some(schema);
        }
    }
    let older = crd.spec.versions.first().map(older);
    crd.spec.versions.extend(older);
    crd
}

/// The version that clients of KubeVirt's first years name: the same objects, and a word of warning.
fn older(stored: &CustomResourceDefinitionVersion) -> CustomResourceDefinitionVersion {
    CustomResourceDefinitionVersion {
        name: OLDER_VERSION.to_owned(),
        storage: false,
        deprecated: Some(true),
        deprecation_warning: Some(format!(
            "{GROUP}/{OLDER_VERSION} is deprecated; use {GROUP}/{}",
            stored.name
        )),
        ..stored.clone()
    }
}

/// The files of `deploy/crds`, named as KubeVirt's own generator names them: name and text of each.
///
/// # Errors
/// A definition that is no YAML, which no test ever saw.
pub fn files() -> Result<Vec<(String, String)>, crate::manifest::ManifestError> {
    let file = |crd: CustomResourceDefinition| {
        let yaml = crate::manifest::to_yaml(&crd)?;
        let text = format!("# Generated from api/types by `cargo xtask crds`; do not edit.\n{yaml}");
        Ok((format!("{GROUP}_{}.yaml", crd.spec.names.plural), text))
    };
    [
        virtual_machine_instances(),
        virtual_machines(),
        replica_sets(),
        kubevirts(),
    ]
    .map(file)
    .into_iter()
    .collect()
}

fn column((name, type_, json_path, wide): &Column) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        name: (*name).to_owned(),
        type_: (*type_).to_owned(),
        json_path: (*json_path).to_owned(),
        priority: wide.then_some(1),
        ..CustomResourceColumnDefinition::default()
    }
}

/// Makes a generated schema structural, in place and all the way down: objects with fields of their own keep what
/// they do not know, formats and nulls are only those that Kubernetes knows.
fn structural(name: Option<&str>, schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    if schema
        .get("format")
        .is_some_and(|format| !KNOWN_FORMATS.iter().any(|known| format == known))
    {
        schema.remove("format");
    }
    schema.remove("nullable");
    if name.is_some_and(|name| NULLABLE.contains(&name)) {
        schema.insert("nullable".to_owned(), true.into());
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties
            .iter_mut()
            .for_each(|(name, property)| structural(Some(name), property));
    }
    keep_unknown(name, schema);
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(inner) {
            structural(None, inner);
        }
    }
}

/// The object at the top is closed by Kubernetes itself, and a map has no unknown fields; every other object of
/// ours carries `extra`.
fn keep_unknown(name: Option<&str>, schema: &mut Map<String, Value>) {
    let is_object = schema.get("type").is_some_and(|kind| kind == "object");
    let is_map = schema.get("additionalProperties").is_some_and(Value::is_object);
    let is_top = name.is_none()
        && schema
            .get("properties")
            .is_some_and(|fields| fields.get("spec").is_some());
    if is_object && !is_map && !is_top {
        schema.remove("additionalProperties");
        schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
    }
}
