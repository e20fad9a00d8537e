//! Who somebody is, and whether they may: one place decides for REST, websockets and gRPC.
//!
//! ```text
//!   kube-apiserver's word (aggregated), a certificate or a token (users) ─► User ┐
//!   a path (aggregated), a call (service)                             ─► Wanted ┴─► review: a SubjectAccessReview ─► yes, or why not
//! ```
//!
//! The cluster is asked anew each time, since a role can change.

mod gate;

use std::collections::BTreeMap;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};

use crate::subresources::{GROUP, VERSIONS};
pub(crate) use gate::{Caller, Gate};

/// The group, the version and the resource of instances' objects.
const OBJECTS: (&str, &str, &str) = ("kubevirt.io", "v1", INSTANCES);
/// What subresources are of.
const INSTANCES: &str = "virtualmachineinstances";
const MACHINES: &str = "virtualmachines";

/// Somebody whom the cluster knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub uid: Option<String>,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Something that somebody wants to do, as roles name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub verb: &'static str,
    pub group: &'static str,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
}

/// Why a user may not.
#[derive(Debug)]
pub(crate) enum Denied {
    /// No role lets them, in words.
    For(String),
    /// The cluster does not say.
    Unknown(kube::Error),
}

// === impl Wanted ===

impl Wanted {
    /// Something below an instance.
    pub(crate) fn of_instance(
        verb: &'static str,
        (namespace, name): (&str, &str),
        subresource: &str,
    ) -> Self {
        Self::below(verb, INSTANCES, (namespace, name), subresource)
    }

    /// Something below a VirtualMachine.
    pub(crate) fn of_machine(verb: &'static str, (namespace, name): (&str, &str), subresource: &str) -> Self {
        Self::below(verb, MACHINES, (namespace, name), subresource)
    }

    /// Something of the group itself, of a namespace or, where that is empty, of none.
    pub(crate) fn of_group(verb: &'static str, namespace: &str, resource: &str) -> Self {
        Self::below(verb, resource, (namespace, ""), "")
    }

    /// An instance's object; all of them where there is no name, everywhere where there is no namespace.
    pub(crate) fn object(verb: &'static str, namespace: &str, name: &str) -> Self {
        let (group, version, resource) = OBJECTS;
        Self {
            verb,
            group,
            version: version.to_owned(),
            namespace: namespace.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            subresource: String::new(),
        }
    }

    fn below(verb: &'static str, resource: &str, (namespace, name): (&str, &str), subresource: &str) -> Self {
        Self {
            verb,
            group: GROUP,
            version: VERSIONS[0].to_owned(),
            namespace: namespace.to_owned(),
            resource: resource.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    /// In words, where the cluster has none.
    fn denied(&self, user: &str) -> String {
        let Self {
            verb,
            group,
            namespace,
            resource,
            subresource,
            ..
        } = self;
        let what = match subresource.as_str() {
            "" => resource.clone(),
            subresource => format!("{resource}/{subresource}"),
        };
        let place = match namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        format!("User {user:?} cannot {verb} resource {what:?} in API group {group:?} {place}")
    }
}

/// Asks the cluster whether this user may do that.
pub(crate) async fn review(client: &Client, user: &User, wanted: &Wanted) -> Result<(), Denied> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()).filter(|extra: &BTreeMap<_, _>| !extra.is_empty()),
            resource_attributes: Some(ResourceAttributes {
                group: Some(wanted.group.to_owned()),
                version: Some(wanted.version.clone()),
                verb: Some(wanted.verb.to_owned()),
                namespace: some(&wanted.namespace),
                resource: Some(wanted.resource.clone()),
                subresource: some(&wanted.subresource),
                name: some(&wanted.name),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let reviewed = api.create(&PostParams::default(), &review).await;
    let status = reviewed.map_err(Denied::Unknown)?.status.unwrap_or_default();
    if status.allowed {
        return Ok(());
    }
    let reason = status.reason.filter(|reason| !reason.is_empty());
    Err(Denied::For(reason.unwrap_or_else(|| wanted.denied(&user.name))))
}
