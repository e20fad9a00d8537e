//! What there is to ask for: the documents in which clients look up kinds, names and verbs.
//!
//! Both forms are made: the aggregated one of today, and the one document per group of before.

use serde_json::{Value, json};

use crate::resource::Resource;

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const PART_VERBS: [&str; 3] = ["get", "patch", "update"];

/// A group that another router answers for on the same address, and that says itself what is in it.
#[derive(Debug, Clone, Copy)]
pub struct Neighbour {
    /// The group's name.
    pub group: &'static str,
    /// Its versions, the preferred one first.
    pub versions: &'static [&'static str],
}

/// The answers to all questions about what is served, made once.
#[derive(Debug)]
pub(crate) struct Discovery {
    /// `/api` and `/apis` in aggregated form.
    pub(crate) core: Value,
    pub(crate) groups: Value,
    /// `/api` and `/apis` as they were before.
    pub(crate) core_versions: Value,
    pub(crate) group_list: Value,
    /// `/apis/{group}`: (group, document).
    pub(crate) group: Vec<(String, Value)>,
    /// `/api/v1` and `/apis/{group}/{version}`: (group/version, document).
    pub(crate) resources: Vec<(String, Value)>,
}

impl Discovery {
    pub(crate) fn of<'a>(
        resources: &(impl Iterator<Item = &'a Resource> + Clone),
        neighbours: &[Neighbour],
    ) -> Self {
        let groups = group_versions(resources.clone());
        let (core, named): (Vec<_>, Vec<_>) = groups.into_iter().partition(|(group, _)| group.is_empty());
        let within = |group: &str, version: &str| -> Vec<&Resource> {
            resources
                .clone()
                .filter(|r| r.group == group && r.version == version)
                .collect()
        };
        let aggregated = |groups: &[(String, Vec<String>)]| -> Value {
            let item = |(group, versions): &(String, Vec<String>)| {
                let version = |version: &String| {
                    let list = within(group, version).into_iter().map(aggregated_resource);
                    json!({"version": version, "freshness": "Current", "resources": list.collect::<Vec<_>>()})
                };
                let versions: Vec<Value> = versions.iter().map(version).collect();
                json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
            };
            let items: Vec<Value> = groups.iter().map(item).collect();
            json!({
                "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
                "metadata": {}, "items": items,
            })
        };
        let group: Vec<(String, Value)> = named
            .iter()
            .map(|(group, versions)| (group.clone(), api_group(group, versions)))
            .collect();
        let every = core
            .iter()
            .chain(&named)
            .flat_map(|(group, versions)| versions.iter().map(move |version| (group, version)));
        let mut groups = aggregated(&named);
        if let Some(items) = groups["items"].as_array_mut() {
            items.extend(neighbours.iter().map(Neighbour::aggregated));
        }
        let beside = neighbours.iter().map(Neighbour::api_group);
        let listed = group.iter().map(|(_, document)| document.clone()).chain(beside);
        Self {
            core: aggregated(&core),
            groups,
            core_versions: json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
            group_list: json!({
                "kind": "APIGroupList", "apiVersion": "v1",
                "groups": listed.collect::<Vec<_>>(),
            }),
            resources: every.map(|(g, v)| resource_list(g, v, &within(g, v))).collect(),
            group,
        }
    }
}

// === impl Neighbour ===

impl Neighbour {
    fn aggregated(&self) -> Value {
        let version = |version| json!({"version": version, "freshness": "Current", "resources": []});
        let versions: Vec<Value> = self.versions.iter().map(version).collect();
        json!({"metadata": {"name": self.group, "creationTimestamp": null}, "versions": versions})
    }

    fn api_group(&self) -> Value {
        api_group(self.group, self.versions)
    }
}

/// Every group with its versions, in the order of their first resources.
fn group_versions<'a>(resources: impl Iterator<Item = &'a Resource>) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for Resource { group, version, .. } in resources {
        match found.iter_mut().find(|(known, _)| known == group) {
            Some((_, versions)) if versions.contains(version) => {}
            Some((_, versions)) => versions.push(version.clone()),
            None => found.push((group.clone(), vec![version.clone()])),
        }
    }
    found
}

/// The first of its versions is the preferred one.
fn api_group(group: &str, versions: &[impl AsRef<str>]) -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(|named| version(named.as_ref())).collect();
    let preferred = versions.first();
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": versions, "preferredVersion": preferred})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = resource.group_version_kind();
    let status = json!({"subresource": "status", "responseKind": kind, "verbs": PART_VERBS});
    let scaled = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
    let scale = json!({"subresource": "scale", "responseKind": scaled, "verbs": PART_VERBS});
    let subresources = [(resource.has_status, status), (resource.scale.is_some(), scale)];
    let subresources = subresources.into_iter().filter(|(there, _)| *there);
    let subresources: Vec<Value> = subresources.map(|(_, subresource)| subresource).collect();
    let mut found = json!({
        "resource": resource.plural, "responseKind": kind,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": VERBS,
        "shortNames": resource.short_names, "categories": resource.categories, "subresources": subresources,
    });
    if let Some(fields) = found.as_object_mut() {
        fields.retain(|_, value| !value.is_null() && *value != json!([]));
    }
    found
}

fn resource_list(group: &str, version: &str, resources: &[&Resource]) -> (String, Value) {
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    let mut list = Vec::new();
    for resource in resources {
        list.push(json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": VERBS, "shortNames": resource.short_names,
            "categories": resource.categories,
        }));
        if resource.has_status {
            list.push(json!({
                "name": format!("{}/status", resource.plural), "singularName": "", "kind": resource.kind,
                "namespaced": resource.namespaced, "verbs": PART_VERBS,
            }));
        }
        if resource.scale.is_some() {
            list.push(json!({
                "name": format!("{}/scale", resource.plural), "singularName": "", "kind": "Scale",
                "group": "autoscaling", "version": "v1", "namespaced": resource.namespaced, "verbs": PART_VERBS,
            }));
        }
    }
    let document = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list});
    (group_version, document)
}
