//! The cluster's objects: reading, applying and deleting them through `kube::Client`.
//!
//! Objects pass through as they are; the typed form is only looked at where something must be decided, so that one
//! object that we cannot read does not hide the others.

use bytes::Bytes;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rvm_proto::v1::apply_response::Outcome;
use rvm_types::admission::{self, Path};
use rvm_types::{VirtualMachineInstance, manifest};
use serde_json::Value;
use tonic::Status;

use crate::access::{Caller, Wanted};
use crate::apply::{annotated, patch};
use crate::error::{from_kube, invalid, invalid_argument};

/// The namespace of whoever names none.
const DEFAULT_NAMESPACE: &str = "default";

/// The VMIs of a cluster.
#[derive(Clone)]
pub(crate) struct Objects {
    client: Client,
}

impl Objects {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The collection of one namespace. Its name becomes a part of a path, so it must be one.
    pub(crate) fn namespaced(&self, namespace: &str) -> Result<Api<DynamicObject>, Status> {
        if !admission::is_label(namespace) {
            return Err(invalid_argument(format!(
                "{namespace:?} is not a namespace's name"
            )));
        }
        Ok(Api::namespaced_with(self.client.clone(), namespace, &resource()))
    }

    /// The collection of one namespace, or of all where it is empty.
    pub(crate) fn all_or(&self, namespace: &str) -> Result<Api<DynamicObject>, Status> {
        match namespace {
            "" => Ok(Api::all_with(self.client.clone(), &resource())),
            namespace => self.namespaced(namespace),
        }
    }

    pub(crate) async fn get(&self, namespace: &str, name: &str) -> Result<DynamicObject, Status> {
        require_name(name)?;
        self.namespaced(namespace)?
            .get(name)
            .await
            .map_err(|error| from_kube(&error))
    }

    /// One object as the type that decisions are made from.
    pub(crate) async fn get_typed(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<VirtualMachineInstance, Status> {
        let object = self.get(namespace, name).await?;
        let value = serde_json::to_value(object).map_err(|error| Status::internal(error.to_string()))?;
        serde_json::from_value(value)
            .map_err(|error| Status::internal(format!("the object {name:?} cannot be understood: {error}")))
    }

    pub(crate) async fn list(&self, namespace: &str) -> Result<Vec<DynamicObject>, Status> {
        let list = self
            .all_or(namespace)?
            .list(&ListParams::default())
            .await
            .map_err(|error| from_kube(&error))?;
        let mut objects = list.items;
        objects.sort_by_key(|object| (object.namespace(), object.name_any()));
        Ok(objects)
    }

    pub(crate) async fn apply(
        &self,
        manifest: &[u8],
        namespace: &str,
        caller: &Caller,
    ) -> Result<(Outcome, DynamicObject), Status> {
        let wanted = read_manifest(manifest, namespace)?;
        let (namespace, name) = (wanted.namespace().unwrap_or_default(), wanted.name_any());
        let api = self.namespaced(&namespace)?;
        caller.may(&Wanted::object("get", &namespace, &name)).await?;
        let live = api.get_opt(&name).await.map_err(|error| from_kube(&error))?;
        let result = match &live {
            None => {
                // As kube-apiserver judges it: what is created has no name yet.
                caller.may(&Wanted::object("create", &namespace, "")).await?;
                let created = api.create(&PostParams::default(), &annotated(&wanted)).await;
                created.map(|object| (Outcome::Created, object))
            }
            Some(live) => match patch(&wanted, live) {
                None => Ok((Outcome::Unchanged, live.clone())),
                Some(patch) => {
                    caller.may(&Wanted::object("patch", &namespace, &name)).await?;
                    let changed = api
                        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                        .await;
                    changed.map(|object| (Outcome::Configured, object))
                }
            },
        };
        result.map_err(|error| from_kube(&error))
    }

    /// Deletes an object; returns its UID.
    pub(crate) async fn delete(&self, namespace: &str, name: &str) -> Result<String, Status> {
        require_name(name)?;
        let deleted = self
            .namespaced(namespace)?
            .delete(name, &DeleteParams::background())
            .await;
        let deleted = deleted.map_err(|error| from_kube(&error))?;
        Ok(deleted.either(
            |object| object.uid().unwrap_or_default(),
            |status| status.details.map(|details| details.uid).unwrap_or_default(),
        ))
    }
}

/// The namespace that is meant.
pub(crate) fn or_default(namespace: String) -> String {
    if namespace.is_empty() {
        return DEFAULT_NAMESPACE.to_owned();
    }
    namespace
}

/// An object as it travels.
pub(crate) fn to_json(mut object: DynamicObject) -> Result<Bytes, Status> {
    // The items of a list may come without a kind of their own.
    object
        .types
        .get_or_insert_with(kube::core::TypeMeta::resource::<VirtualMachineInstance>);
    let text = serde_json::to_vec(&object).map_err(|error| Status::internal(error.to_string()))?;
    Ok(text.into())
}

/// A manifest as an object that may be sent to the cluster: one VMI, with its namespace, and fit to run.
fn read_manifest(bytes: &[u8], namespace: &str) -> Result<DynamicObject, Status> {
    let mut documents = manifest::parse(bytes).map_err(|error| invalid_argument(error.to_string()))?;
    let document = match (documents.pop(), documents.len()) {
        (Some(document), 0) => document,
        (None, _) => return Err(invalid_argument("the manifest is empty")),
        _ => {
            return Err(invalid_argument(
                "the manifest holds several objects; apply them one by one",
            ));
        }
    };
    require_kind(&document)?;
    let vmi: VirtualMachineInstance =
        serde_path_to_error::deserialize(document.clone()).map_err(|error| {
            let field = error.path().to_string();
            invalid(
                "the manifest is not valid",
                &[Path::new(&field).invalid(error.into_inner())],
            )
        })?;
    let Some(name) = vmi.metadata.name.clone() else {
        return Err(invalid(
            "the manifest is not valid",
            &[Path::new("metadata.name").required("is missing")],
        ));
    };
    let mut defaulted = vmi;
    admission::default(&mut defaulted);
    let causes = admission::validate(&defaulted);
    if !causes.is_empty() {
        return Err(invalid(
            &format!("VirtualMachineInstance {name:?} is not valid"),
            &causes,
        ));
    }
    in_namespace(document, namespace)
}

/// The manifest's own namespace, the one that was asked for, or the default. The first two must not differ.
fn in_namespace(document: Value, asked: &str) -> Result<DynamicObject, Status> {
    let mut object: DynamicObject =
        serde_json::from_value(document).map_err(|error| invalid_argument(error.to_string()))?;
    let own = object.namespace().unwrap_or_default();
    object.metadata.namespace = Some(match (own.as_str(), asked) {
        ("", "") => DEFAULT_NAMESPACE.to_owned(),
        ("", asked) => asked.to_owned(),
        (own, asked) if asked.is_empty() || asked == own => own.to_owned(),
        (own, asked) => {
            let message = format!("the manifest is of namespace {own:?}, and {asked:?} was asked for");
            return Err(invalid_argument(message));
        }
    });
    Ok(object)
}

fn require_kind(document: &Value) -> Result<(), Status> {
    let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or("");
    match (text("apiVersion"), text("kind")) {
        ("kubevirt.io/v1", "VirtualMachineInstance") => Ok(()),
        (version, kind) => Err(invalid_argument(format!(
            "the manifest is of apiVersion {version:?} and kind {kind:?}; rvm applies kubevirt.io/v1, \
             VirtualMachineInstance"
        ))),
    }
}

fn require_name(name: &str) -> Result<(), Status> {
    if !admission::is_name(name) {
        return Err(invalid_argument(format!("{name:?} is not a machine's name")));
    }
    Ok(())
}

/// What the cluster calls a VMI.
pub(crate) fn resource() -> ApiResource {
    ApiResource::erase::<VirtualMachineInstance>(&())
}
