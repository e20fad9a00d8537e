//! The kinds that every cluster has and that local mode cannot do without: namespaces, nodes, events, leases, revisions, and
//! (in files of their own) ConfigMaps, Secrets, NetworkPolicies, PersistentVolumeClaims and PersistentVolumes.
//!
//! Their schemas for `kubectl explain` come from the Kubernetes types themselves.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Namespace, Node};
use k8s_openapi::api::events::v1::Event as NewerEvent;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::claims;
use crate::config;
use crate::limits;
use crate::network_policies;
use crate::object::{metadata_mut, metadata_text};
use crate::openapi;
use crate::patch::strategic::{List, Lists};
use crate::persistent_volumes;
use crate::resource::{Admission, Resource};
use crate::status::Cause;
use crate::table::{Column, human_since};
use crate::view;

/// Name of the namespace that is there from the start and cannot be deleted.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

const CONDITIONS: Lists = &[("status.conditions", List::Keyed("type"))];
const OF_NODES: Lists = &[
    ("spec.podCIDRs", List::Set),
    ("status.addresses", List::Keyed("type")),
    ("status.conditions", List::Keyed("type")),
];

/// A new namespace is active, and carries its name as a label, as everywhere.
struct NamespaceRules;

impl Admission for NamespaceRules {
    fn default(&self, object: &mut Value, before: Option<&Value>) {
        let name = metadata_text(object, "name").to_owned();
        let labels = metadata_mut(object).entry("labels").or_insert_with(|| json!({}));
        labels["kubernetes.io/metadata.name"] = json!(name);
        if before.is_none() {
            object["status"] = json!({"phase": "Active"});
        }
    }

    fn validate(&self, _object: &Value, _before: Option<&Value>) -> Vec<Cause> {
        Vec::new()
    }
}

/// All built-in resources.
pub(crate) fn resources() -> Vec<Resource> {
    vec![
        namespaces(),
        nodes(),
        events(),
        newer_events(),
        leases(),
        revisions(),
        config::config_maps(),
        config::secrets(),
        claims::persistent_volume_claims(),
        persistent_volumes::persistent_volumes(),
        network_policies::network_policies(),
    ]
}

fn namespaces() -> Resource {
    let phase = |object: &Value| {
        object
            .pointer("/status/phase")
            .cloned()
            .unwrap_or(json!("Active"))
    };
    Resource {
        short_names: vec!["ns".to_owned()],
        has_status: true,
        columns: vec![
            Column::made("Status", "The status of the namespace", phase),
            Column::age(),
        ],
        admission: Some(Arc::new(NamespaceRules)),
        merged: Some(CONDITIONS),
        ..base::<Namespace>("", "namespaces", false)
    }
}

fn nodes() -> Resource {
    let version = |object: &Value| {
        object
            .pointer("/status/nodeInfo/kubeletVersion")
            .cloned()
            .unwrap_or_default()
    };
    let kernel = |object: &Value| {
        object
            .pointer("/status/nodeInfo/kernelVersion")
            .cloned()
            .unwrap_or_default()
    };
    Resource {
        short_names: vec!["no".to_owned()],
        has_status: true,
        columns: vec![
            Column::made("Status", "The status of the node", node_status),
            Column::made("Roles", "The roles of the node", node_roles),
            Column::age(),
            Column::made("Version", "Version of the node's agent", version),
            Column::made("Kernel-Version", "Kernel of the node", kernel).wide(),
        ],
        selectable: vec!["spec.unschedulable".to_owned()],
        merged: Some(OF_NODES),
        ..base::<Node>("", "nodes", false)
    }
}

fn events() -> Resource {
    let kind = |event: &Value| json!(text(event, "/type"));
    let reason = |event: &Value| json!(text(event, "/reason"));
    let message = |event: &Value| json!(text(event, "/message").trim());
    let about = |event: &Value| {
        let kind = text(event, "/involvedObject/kind").to_lowercase();
        json!(format!("{kind}/{}", text(event, "/involvedObject/name")))
    };
    let selectable = [
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ];
    Resource {
        short_names: vec!["ev".to_owned()],
        columns: vec![
            Column::made("Last Seen", "Time of the last occurrence", last_seen),
            Column::made("Type", "Normal or Warning", kind),
            Column::made("Reason", "Why, in one word", reason),
            Column::made("Object", "What the event is about", about),
            Column::made("Message", "What happened", message),
        ],
        selectable: selectable.map(str::to_owned).to_vec(),
        kept: Some(limits::EVENT_KEPT),
        ..base::<Event>("", "events", true)
    }
}

fn newer_events() -> Resource {
    let selectable = [
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "reason",
        "type",
    ];
    let older = events();
    Resource {
        short_names: older.short_names,
        // Rows are made from the stored form, so the columns are the same ones.
        columns: older.columns,
        kept: older.kept,
        selectable: selectable.map(str::to_owned).to_vec(),
        view: Some(view::EVENTS),
        ..base::<NewerEvent>("events.k8s.io", "events", true)
    }
}

/// What the controller of VirtualMachines keeps of their templates.
fn revisions() -> Resource {
    let revision = |object: &Value| object.get("revision").cloned().unwrap_or_default();
    let controller = |object: &Value| {
        let kind = text(object, "/metadata/ownerReferences/0/kind").to_lowercase();
        json!(format!(
            "{kind}/{}",
            text(object, "/metadata/ownerReferences/0/name")
        ))
    };
    Resource {
        columns: vec![
            Column::made("Controller", "Whose state it is", controller),
            Column::made("Revision", "The generation of that", revision),
            Column::age(),
        ],
        ..base::<ControllerRevision>("apps", "controllerrevisions", true)
    }
}

fn leases() -> Resource {
    let holder = |object: &Value| {
        object
            .pointer("/spec/holderIdentity")
            .cloned()
            .unwrap_or_default()
    };
    Resource {
        columns: vec![
            Column::made("Holder", "Who holds the lease", holder),
            Column::age(),
        ],
        ..base::<Lease>("coordination.k8s.io", "leases", true)
    }
}

pub(crate) fn base<T>(group: &str, plural: &str, namespaced: bool) -> Resource
where
    T: k8s_openapi::Resource + DeserializeOwned + JsonSchema,
{
    let (definition, definitions) = definitions::<T>();
    Resource {
        group: group.to_owned(),
        version: T::VERSION.to_owned(),
        plural: plural.to_owned(),
        singular: T::KIND.to_lowercase(),
        kind: T::KIND.to_owned(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced,
        has_status: false,
        scale: None,
        blind_update: true,
        schema: None,
        decode: Some(|value| T::deserialize(value).map(drop)),
        admission: None,
        columns: Vec::new(),
        selectable: Vec::new(),
        kept: None,
        view: None,
        merged: Some(&[]),
        definitions,
        definition,
    }
}

/// The type's own OpenAPI definition and all that it refers to.
fn definitions<T: JsonSchema>() -> (String, Vec<(String, Value)>) {
    let mut generator = openapi::settings().into_generator();
    let _ = generator.subschema_for::<T>();
    let list = generator.take_definitions(true).into_iter().collect();
    (T::schema_name().into_owned(), list)
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn node_status(node: &Value) -> Value {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.and_then(|list| list.iter().find(|condition| condition["type"] == "Ready"));
    let mut text = match ready.and_then(|condition| condition["status"].as_str()) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
        text.push_str(",SchedulingDisabled");
    }
    Value::from(text)
}

fn node_roles(node: &Value) -> Value {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let roles = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"));
    let roles: Vec<&str> = roles.collect();
    Value::from(if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    })
}

fn last_seen(event: &Value) -> Value {
    let times = [
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/eventTime",
        "/metadata/creationTimestamp",
    ];
    let time = times
        .iter()
        .find_map(|path| event.pointer(path).and_then(Value::as_str));
    Value::from(time.map_or_else(|| "<unknown>".to_owned(), human_since))
}
