//! What creating, changing and deleting mean: decided on a `Batch`, so that a write happens whole or not at all.
//!
//! ```text
//!   create   shape ─► begin (uid, time, generation) ─► admit ─► put
//!   change   shape ─► carry over what clients cannot change ─► admit ─► put, or nothing where nothing changed,
//!                                                                      or remove where the last finalizer went
//!   delete   see `deletion`
//!
//!   admit    drop unknown fields ─► defaults (schema, then the kind's own) ─► metadata, schema, the kind's own rules
//! ```

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use crate::batch::Batch;
use crate::deletion::{self, Deleted, Propagation, delete_namespace, namespace_key, settle_namespace};
use crate::fields::{Config, Manager, Write};
use crate::metadata;
use crate::object::{Key, Object, has_finalizers, metadata_mut, metadata_text};
use crate::resource::Resource;
use crate::status::{Answer, Failure};

/// What becomes of fields that the schema does not know (`fieldValidation`); they are never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnknownFields {
    Ignore,
    Warn,
    Refuse,
}

/// What of an object is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but what has a subresource of its own.
    Whole,
    /// Its status.
    Status,
    /// How many of something it asks for.
    Scale,
}

/// The object that a request is about.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) resource: Arc<Resource>,
    pub(crate) namespace: Option<String>,
    pub(crate) part: Part,
}

/// How an object is written.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) unknown: UnknownFields,
    pub(crate) manager: Manager,
    /// Where it is applied, what is applied.
    pub(crate) config: Option<Arc<Config>>,
}

/// A stored object, and what the client should be warned about.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) object: Arc<Object>,
    pub(crate) warnings: Vec<String>,
}

impl Manner {
    /// How we write ourselves.
    pub(crate) fn ours() -> Self {
        Self {
            unknown: UnknownFields::Ignore,
            manager: Manager {
                name: env!("CARGO_PKG_NAME").to_owned(),
                is_named: false,
            },
            config: None,
        }
    }
}

impl Part {
    fn subresource(self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::Status => Some("status"),
            Self::Scale => Some("scale"),
        }
    }
}

impl Place {
    pub(crate) fn key(&self, name: &str) -> Key {
        Key::new(&self.resource.prefix(), self.namespace.as_deref(), name)
    }

    fn not_found(&self, name: &str) -> Failure {
        Failure::not_found(&self.resource.group, &self.resource.plural, name)
    }

    /// The stored object, or 404.
    pub(crate) fn find(&self, batch: &Batch<'_>, name: &str) -> Answer<Arc<Object>> {
        batch.get(&self.key(name)).ok_or_else(|| self.not_found(name))
    }

    /// Stores a new object.
    pub(crate) fn create(&self, batch: &mut Batch<'_>, mut body: Value, manner: &Manner) -> Answer<Written> {
        let resource = &self.resource;
        metadata::check_shape(resource, self.namespace.as_deref(), &mut body)?;
        metadata_mut(&mut body).remove("managedFields");
        metadata::begin(&mut body)?;
        self.check_namespace(batch, metadata_text(&body, "name"))?;
        // What a machine does is its handler's to say, not its author's: also where status is no subresource.
        if resource.schema.is_some() {
            body.as_object_mut().and_then(|fields| fields.remove("status"));
        }
        let warnings = self.admit(&mut body, None, manner.unknown)?;
        self.write(manner)
            .note(None, &mut body, None, manner.config.as_deref());
        let name = metadata_text(&body, "name").to_owned();
        let key = self.key(&name);
        if batch.get(&key).is_some() {
            return Err(Failure::already_exists(&resource.group, &resource.plural, &name));
        }
        let object = batch.put(key, resource.to_stored(body))?;
        Ok(Written { object, warnings })
    }

    fn check_namespace(&self, batch: &Batch<'_>, name: &str) -> Answer<()> {
        let Some(namespace) = &self.namespace else {
            return Ok(());
        };
        let found = batch.get(&namespace_key(namespace));
        let found = found.ok_or_else(|| Failure::not_found("", "namespaces", namespace))?;
        if found.is_terminating() {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            return Err(Failure::forbidden(
                &self.resource.group,
                &self.resource.plural,
                name,
                &why,
            ));
        }
        Ok(())
    }

    /// Stores what `change` makes of the object. `blind` takes a new form that names no resourceVersion.
    pub(crate) fn update(
        &self,
        batch: &mut Batch<'_>,
        name: &str,
        manner: &Manner,
        blind: bool,
        change: impl FnOnce(&Value) -> Answer<Value>,
    ) -> Answer<Written> {
        let resource = &self.resource;
        let before = self.find(batch, name)?;
        let shown = resource.show(&before.value).into_owned();
        let mut after = change(&shown)?;
        metadata::check_shape(resource, self.namespace.as_deref(), &mut after)?;
        metadata::carry_over(resource, &before, &mut after, blind)?;
        let told = metadata_mut(&mut after).remove("managedFields");
        let told = told.filter(|told| Some(told) != before.metadata("managedFields"));
        if self.part == Part::Status {
            let status = after.get("status").cloned();
            after = shown.clone();
            replace(&mut after, "status", status);
        } else if resource.has_status {
            replace(&mut after, "status", shown.get("status").cloned());
        }
        let warnings = self.admit(&mut after, Some((&before, &shown)), manner.unknown)?;
        if wish(&after) != wish(&shown) {
            let generation = before.metadata("generation").and_then(Value::as_u64).unwrap_or(0);
            metadata_mut(&mut after).insert("generation".to_owned(), json!(generation + 1));
        }
        let write = self.write(manner);
        write.note(Some(&shown), &mut after, told.as_ref(), manner.config.as_deref());
        let after = resource.to_stored(after);
        if after == before.value {
            return Ok(Written {
                object: before,
                warnings,
            });
        }
        let object = if before.is_terminating() && !has_finalizers(&after) {
            let gone = deletion::remove(batch, &before.key, after)?.ok_or_else(|| self.not_found(name))?;
            settle_namespace(batch, self.namespace.as_deref());
            gone
        } else {
            batch.put(before.key.clone(), after)?
        };
        Ok(Written { object, warnings })
    }

    /// Applies what the manner has: makes the object, or lays that over it. Also tells whether it was made.
    pub(crate) fn apply(
        &self,
        batch: &mut Batch<'_>,
        name: &str,
        manner: &Manner,
    ) -> Answer<(Written, bool)> {
        let Some(config) = manner.config.as_deref() else {
            return Err(Failure::internal("nothing is applied"));
        };
        if batch.get(&self.key(name)).is_some() {
            let lay = |live: &Value| self.write(manner).apply(live, config);
            return Ok((self.update(batch, name, manner, true, lay)?, false));
        }
        if self.part != Part::Whole {
            return Err(self.not_found(name));
        }
        let mut body = config.object.clone();
        if let Some(uid) = Some(metadata_text(&body, "uid")).filter(|uid| !uid.is_empty()) {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            let Resource { group, plural, .. } = &*self.resource;
            return Err(Failure::conflict(group, plural, name, &why));
        }
        let given = metadata_text(&body, "name");
        if !given.is_empty() && given != name {
            let message =
                format!("the name of the object ({given}) does not match the name on the URL ({name})");
            return Err(Failure::bad_request(message));
        }
        metadata_mut(&mut body).insert("name".to_owned(), json!(name));
        Ok((self.create(batch, body, manner)?, true))
    }

    fn write<'a>(&'a self, manner: &'a Manner) -> Write<'a> {
        Write {
            resource: &self.resource,
            subresource: self.part.subresource(),
            manager: &manner.manager,
        }
    }

    /// Brings an object into shape and checks it; returns warnings.
    fn admit(
        &self,
        object: &mut Value,
        before: Option<(&Object, &Value)>,
        unknown: UnknownFields,
    ) -> Answer<Vec<String>> {
        let resource = &self.resource;
        let mut dropped = metadata::prune(object);
        if let Some(schema) = &resource.schema {
            dropped.extend(schema.prune(object));
            schema.fill_defaults(object);
        }
        let texts: Vec<String> = dropped
            .iter()
            .map(|path| format!("unknown field {path:?}"))
            .collect();
        if unknown == UnknownFields::Refuse && !texts.is_empty() {
            return Err(Failure::bad_request(format!(
                "strict decoding error: {}",
                texts.join(", ")
            )));
        }
        let (stored, shown) = (before.map(|(stored, _)| stored), before.map(|(_, shown)| shown));
        if let Some(admission) = &resource.admission {
            admission.default(object, shown);
        }
        let mut causes = metadata::validate(resource, object, stored);
        causes.extend(resource.schema.iter().flat_map(|schema| schema.validate(object)));
        // The kind's own rules read the object through its types: they come once the types are right.
        if causes.is_empty() {
            causes.extend(
                resource
                    .admission
                    .iter()
                    .flat_map(|admission| admission.validate(object, shown)),
            );
        }
        if !causes.is_empty() {
            let name = metadata_text(object, "name");
            return Err(Failure::invalid(&resource.group, &resource.kind, name, causes));
        }
        Ok(if unknown == UnknownFields::Warn {
            texts
        } else {
            Vec::new()
        })
    }

    /// Deletes an object, or marks it where finalizers are in the way.
    pub(crate) fn delete(
        &self,
        batch: &mut Batch<'_>,
        name: &str,
        options: &DeleteOptions,
        propagation: Propagation,
    ) -> Answer<Deleted> {
        let resource = &self.resource;
        let object = self.find(batch, name)?;
        self.check_preconditions(&object, name, options)?;
        if resource.group.is_empty() && resource.kind == "Namespace" {
            return delete_namespace(batch, &object, name);
        }
        let deleted = deletion::delete(batch, &object, propagation)?;
        settle_namespace(batch, self.namespace.as_deref());
        Ok(deleted)
    }

    fn check_preconditions(&self, object: &Object, name: &str, options: &DeleteOptions) -> Answer<()> {
        let Some(wanted) = &options.preconditions else {
            return Ok(());
        };
        let checks = [
            ("UID", &wanted.uid, "uid"),
            ("ResourceVersion", &wanted.resource_version, "resourceVersion"),
        ];
        for (title, wanted, field) in checks {
            let found = object.text(field);
            if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
                let why = format!(
                    "Precondition failed: {title} in precondition: {wanted}, {title} in object meta: {found}"
                );
                return Err(Failure::conflict(
                    &self.resource.group,
                    &self.resource.plural,
                    name,
                    &why,
                ));
            }
        }
        Ok(())
    }
}

fn replace(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(fields) = object.as_object_mut() {
        match value {
            Some(value) => fields.insert(field.to_owned(), value),
            None => fields.remove(field),
        };
    }
}

/// What the user wishes for: all but metadata and status. A change of it makes a new generation.
fn wish(object: &Value) -> Vec<(&String, &Value)> {
    let fields = object.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| *name != "metadata" && *name != "status")
        .collect()
}
